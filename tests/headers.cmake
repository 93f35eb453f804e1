# cmake -DBUILD=... -DSOURCE=... -P headers.cmake
# Compiles every public header alone, and looks whether it was every one.
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} --target all_verify_interface_header_sets
  COMMAND_ERROR_IS_FATAL ANY)
file(READ ${BUILD}/compile_commands.json commands)
file(GLOB_RECURSE headers RELATIVE ${SOURCE} ${SOURCE}/*/include/*.h)
list(FILTER headers INCLUDE REGEX "^(reactor|server|client|bench)/include/")
list(LENGTH headers count)
foreach(header ${headers})
  string(REGEX REPLACE "^([^/]+)/include/(.*)$" "/anteroom_\\1_verify_interface_header_sets/\\2.cxx\"" command ${header})
  string(FIND "${commands}" "${command}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "${header} is not compiled alone: no ${command}")
  endif()
endforeach()
if(count EQUAL 0)
  message(FATAL_ERROR "found no public header in ${SOURCE}")
endif()
message(STATUS "${count} public headers compile alone")
