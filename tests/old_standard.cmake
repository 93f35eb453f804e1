# cmake -DCOMPILER=... -DSOURCE=... -P old_standard.cmake
# Includes each public header as C++17: the first error has to say in words what is missing, and not what the headers stumble over.
file(GLOB headers ${SOURCE}/reactor/include/anteroom/*.h ${SOURCE}/server/include/anteroom/*.h ${SOURCE}/client/include/anteroom/*.h)
if(NOT headers)
  message(FATAL_ERROR "found no public header in ${SOURCE}")
endif()
foreach(header ${headers})
  execute_process(COMMAND ${COMPILER} -std=c++17 -fsyntax-only -Wfatal-errors -x c++ ${header}
    -I ${SOURCE}/reactor/include -I ${SOURCE}/server/include -I ${SOURCE}/client/include
    RESULT_VARIABLE status ERROR_VARIABLE errors OUTPUT_QUIET)
  string(REGEX MATCH "error: [^\n]*" first "${errors}")
  if(status EQUAL 0 OR NOT first MATCHES "anteroom needs C\\+\\+20")
    message(FATAL_ERROR "${header} as C++17 ends with ${status}, and first says: ${first}")
  endif()
endforeach()
