# anteroom_test(timer_test timer_test.cc): a program of GoogleTest cases, each of them known to ctest by its own name.
# ALONE: they measure, so that no others may run meanwhile; but for those that match the GoogleTest filter BUT_FOR.
function(anteroom_test name)
  cmake_parse_arguments(arg "ALONE" "BUT_FOR" "" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE anteroom::server anteroom::client
    $<TARGET_NAME_IF_EXISTS:anteroom::bench> GTest::gmock_main fmt::fmt anteroom_build)
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF UNITY_BUILD OFF)
    # What is tested is optimised, what tests it is not: that would take a third longer to compile, and twice as long with sanitizers.
  if(CMAKE_BUILD_TYPE STREQUAL Debug)
    target_compile_options(${name} PRIVATE -O0)
  endif()
  if(NOT arg_ALONE OR arg_BUT_FOR)
    gtest_discover_tests(${name} TEST_FILTER "${arg_BUT_FOR}" DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
  endif()
  if(arg_ALONE)
    gtest_discover_tests(${name} TEST_FILTER "-${arg_BUT_FOR}" TEST_LIST ${name}_alone
      DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120 RUN_SERIAL ON)
  endif()
endfunction()
