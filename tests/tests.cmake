# anteroom_test(timer_test timer_test.cc): a program of GoogleTest cases, each of them known to ctest by its own name.
# ${anteroom_test_properties} are given to each.
function(anteroom_test name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE anteroom::server anteroom::client
    $<TARGET_NAME_IF_EXISTS:anteroom::bench> GTest::gmock_main fmt::fmt anteroom_build)
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF UNITY_BUILD OFF)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120 ${anteroom_test_properties})
endfunction()
