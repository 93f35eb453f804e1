# What all programs of tests have in common.
function(anteroom_compile_as_test target)
  target_link_libraries(${target} PRIVATE anteroom::server anteroom::client
    $<TARGET_NAME_IF_EXISTS:anteroom::bench> GTest::gmock_main fmt::fmt anteroom_build)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF UNITY_BUILD OFF)
  if(CMAKE_BUILD_TYPE STREQUAL Debug)
    # What is tested is optimised, what tests it is not: that would take half as long again to compile, or twice with sanitizers.
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

# Where unity builds are on (sanitizers, clang), what they all include is compiled once, for a quarter of the rest of that time.
# Not in dev, which shows that each of them includes what it needs, and from whose commands clang's tools read: they do not know
# GCC's headers.
if(CMAKE_UNITY_BUILD)
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/alike.cc CONTENT "")
  add_library(anteroom_tests_alike OBJECT ${CMAKE_CURRENT_BINARY_DIR}/alike.cc)
  anteroom_compile_as_test(anteroom_tests_alike)
  target_precompile_headers(anteroom_tests_alike PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
endif()

# anteroom_test(timer_test timer_test.cc): a program of GoogleTest cases, each of them known to ctest by its own name.
# ALONE: they measure, so that no others may run meanwhile; but for those that match the GoogleTest filter BUT_FOR.
function(anteroom_test name)
  cmake_parse_arguments(arg "ALONE" "BUT_FOR" "" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  anteroom_compile_as_test(${name})
  if(CMAKE_UNITY_BUILD)
    target_precompile_headers(${name} REUSE_FROM anteroom_tests_alike)
  endif()
  if(NOT arg_ALONE OR arg_BUT_FOR)
    gtest_discover_tests(${name} TEST_FILTER "${arg_BUT_FOR}" DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
  endif()
  if(arg_ALONE)
    gtest_discover_tests(${name} TEST_FILTER "-${arg_BUT_FOR}" TEST_LIST ${name}_alone
      DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120 RUN_SERIAL ON LABELS measures)
  endif()
endfunction()
