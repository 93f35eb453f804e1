# What every folder of the house does the same way.

# anteroom_require(fmt libfmt-dev): finds an installed package, or says what to install.
macro(anteroom_require package debian_packages)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "anteroom needs ${package}, which is not installed.\n"
      "On Debian or Ubuntu: apt-get install ${debian_packages}   (or run tools/setup, which installs all that is missing)")
  endif()
endmacro()

# Warnings and sanitizers: ours alone, never those of a project that links us.
add_library(anteroom_build INTERFACE)
# clang's -Wcast-align warns of the kernel's own macros too (NLMSG_NEXT, RTA_NEXT), whatever the alignment of the buffer.
target_compile_options(anteroom_build INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast
  $<$<CXX_COMPILER_ID:GNU>:-Wcast-align> -Woverloaded-virtual -Wno-missing-field-initializers $<$<BOOL:${ANTEROOM_WERROR}>:-Werror>)
if(ANTEROOM_SANITIZE)
  target_compile_options(anteroom_build INTERFACE -fsanitize=${ANTEROOM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(anteroom_build INTERFACE -fsanitize=${ANTEROOM_SANITIZE})
  # vptr looks through a pipe whether an object is there, so it finds none where descriptors have run out, as tests arrange.
  target_compile_options(anteroom_build INTERFACE -fno-sanitize=vptr)
endif()

# anteroom_library(server SOURCES a.cc LINKS anteroom::reactor PRIVATE_LINKS fmt::fmt)
# One layer: its public headers are all of include/anteroom/, each of which has to compile alone.
# STATIC: it is not installed, so that what is installed must not need it when the libraries are shared.
function(anteroom_library name)
  cmake_parse_arguments(arg "STATIC" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/include/anteroom/*.h
    ${CMAKE_CURRENT_SOURCE_DIR}/include/anteroom/*/*.h)
  set(type)
  if(arg_STATIC)
    set(type STATIC)
  endif()
  add_library(anteroom_${name} ${type} ${arg_SOURCES})
  add_library(anteroom::${name} ALIAS anteroom_${name})
  target_sources(anteroom_${name} PUBLIC FILE_SET HEADERS BASE_DIRS include FILES ${headers})
  target_compile_features(anteroom_${name} PUBLIC cxx_std_20)
  target_link_libraries(anteroom_${name} PUBLIC ${arg_LINKS} PRIVATE ${arg_PRIVATE_LINKS} $<BUILD_INTERFACE:anteroom_build>)
  set_target_properties(anteroom_${name} PROPERTIES EXPORT_NAME ${name} OUTPUT_NAME anteroom-${name}
    CXX_EXTENSIONS OFF VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  if(BUILD_SHARED_LIBS) # one finds the other
    set_property(TARGET anteroom_${name} APPEND PROPERTY INSTALL_RPATH $ORIGIN)
  endif()
endfunction()

# anteroom_program(hello_server SOURCES hello_server.cc LINKS anteroom::server): lands in bin/, and is installed.
# Whoever builds us as a part of something else wants the libraries only.
function(anteroom_program name)
  if(NOT ANTEROOM_LABORATORY)
    return()
  endif()
  cmake_parse_arguments(arg "INSTALL" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINKS} fmt::fmt anteroom_build anteroom_program_streams)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF UNITY_BUILD OFF)
  if(arg_INSTALL AND ANTEROOM_INSTALL)
    if(BUILD_SHARED_LIBS) # found from where it lies, wherever the tree is installed or moved to
      file(RELATIVE_PATH libraries ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
      set_property(TARGET ${name} APPEND PROPERTY INSTALL_RPATH $ORIGIN/${libraries})
    endif()
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
  endif()
endfunction()

# anteroom::anteroom: all that users link, in one name.
function(anteroom_umbrella)
  add_library(anteroom_all INTERFACE)
  add_library(anteroom::anteroom ALIAS anteroom_all)
  target_link_libraries(anteroom_all INTERFACE anteroom_reactor anteroom_server anteroom_client)
  set_target_properties(anteroom_all PROPERTIES EXPORT_NAME anteroom)
endfunction()

# The library's targets, find_package(anteroom CONFIG) for those who link it, and what they read, in folders as here, so that
# links from one to another lead there.
function(anteroom_install)
  include(CMakePackageConfigHelpers)
  set(destination ${CMAKE_INSTALL_LIBDIR}/cmake/anteroom)
  install(TARGETS anteroom_reactor anteroom_server anteroom_client anteroom_all EXPORT anteroom-targets FILE_SET HEADERS)
  install(EXPORT anteroom-targets NAMESPACE anteroom:: DESTINATION ${destination})
  configure_package_config_file(cmake/anteroom-config.cmake.in ${PROJECT_BINARY_DIR}/anteroom-config.cmake
    INSTALL_DESTINATION ${destination})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/anteroom-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/anteroom-config.cmake ${PROJECT_BINARY_DIR}/anteroom-config-version.cmake
    DESTINATION ${destination})
  foreach(guide LICENSE README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md server/SERVICES.md tools/JSON.md
      tools/RUNNING-SERVERS.md tools/report/README.md tools/report/third_party/uPlot/LICENSE)
    get_filename_component(folder ${guide} DIRECTORY)
    install(FILES ${PROJECT_SOURCE_DIR}/${guide} DESTINATION ${CMAKE_INSTALL_DOCDIR}/${folder})
  endforeach()
endfunction()
