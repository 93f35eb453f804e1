# cmake -DBUILD=... -DSOURCE=... -DPREFIX=... -P install.cmake
# Installs into PREFIX, and once more into PREFIX-moved, which was another folder while it was installed.
# The tree has to hold the public headers of the three layers, and of the tests nothing.
file(REMOVE_RECURSE ${PREFIX} ${PREFIX}-before ${PREFIX}-moved)
foreach(prefix ${PREFIX} ${PREFIX}-before)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix}
    OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
file(RENAME ${PREFIX}-before ${PREFIX}-moved)

set(ours)
foreach(layer reactor server client)
  file(GLOB_RECURSE headers RELATIVE ${SOURCE}/${layer} ${SOURCE}/${layer}/include/*.h)
  list(APPEND ours ${headers})
endforeach()
file(GLOB_RECURSE installed RELATIVE ${PREFIX} ${PREFIX}/*.h ${PREFIX}/*.hpp ${PREFIX}/*.hh)
list(SORT ours)
list(SORT installed)
if(NOT ours STREQUAL installed)
  message(FATAL_ERROR "installed headers: ${installed}\nours: ${ours}")
endif()
file(GLOB_RECURSE tests RELATIVE ${PREFIX} ${PREFIX}/*test* ${PREFIX}/*gmock*)
if(tests)
  message(FATAL_ERROR "of the tests, this was installed: ${tests}")
endif()
