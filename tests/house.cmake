# What holds of the house as a whole: its layers, its public headers, its style, and what its users get.

# A folder sees the headers of those below it and no others. Each probe is compiled with the include path of a layer, but
# for the system's own, in which another anteroom may have been installed, where the header must not be found.
set(sees_reactor reactor)
set(sees_server reactor server)
set(sees_client reactor client)
set(door_of_reactor anteroom/reactor.h)
set(door_of_server anteroom/acceptor.h)
set(door_of_client anteroom/connector.h)
set(door_of_bench anteroom/bench/scenario.h)
foreach(layer reactor server client)
  foreach(other reactor server client bench)
    set(header ${door_of_${other}})
    set(compile ${CMAKE_CXX_COMPILER} -std=c++20 -fsyntax-only -DINCLUDED=<${header}> ${CMAKE_CURRENT_LIST_DIR}/layers/probe.cc)
    set(path $<FILTER:$<TARGET_PROPERTY:anteroom_${layer},INCLUDE_DIRECTORIES>,EXCLUDE,^/usr/\(local/\)?include$>)
    set(place "-I$<JOIN:${path},;-I>")
    if(other IN_LIST sees_${layer})
      add_test(NAME Layers.${layer}_sees_${other} COMMAND ${compile} "${place}" COMMAND_EXPAND_LISTS)
    elseif(EXISTS ${PROJECT_SOURCE_DIR}/${other}/include/${header})
      add_test(NAME Layers.${layer}_does_not_see_${other} COMMAND ${compile} "${place}" -nostdinc COMMAND_EXPAND_LISTS)
      set_tests_properties(Layers.${layer}_does_not_see_${other} PROPERTIES
        PASS_REGULAR_EXPRESSION "${header}(: No such file|' file not found)")
    else()
      message(FATAL_ERROR "${other} has lost its ${header}, which the tests of the layers include")
    endif()
  endforeach()
endforeach()

# The rules of style, and whether each of them is able to find something.
add_test(NAME Style.IsKept COMMAND ${CMAKE_CURRENT_LIST_DIR}/style)
set(offences ${CMAKE_CURRENT_BINARY_DIR}/offences)
foreach(layer reactor server client bench tools tests)
  file(MAKE_DIRECTORY ${offences}/${layer})
endforeach()
string(CONCAT unfinished "// TO" "DO\n")
file(WRITE ${offences}/reactor/include/anteroom/twice.h "#include <fmt/format.h>\n")
file(WRITE ${offences}/server/include/anteroom/hidden.h "#pragma once\nnamespace anteroom {\nint hidden();\n}\n")
file(WRITE ${offences}/client/climbs.cc "#include \"../server/door.h\"\n${unfinished}")
# A blank line in the middle, a cell too many, an end that lacks, no head; and what is right, or is no table.
file(WRITE ${offences}/client/blank.md "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n| 5 | 6 |\n")
file(WRITE ${offences}/client/cells.h "#pragma once\n/// | a | b |\n/// |---|---|\n/// | 1 | 2 | 3 |\n/// | 4 |\n/// | 5\n")
file(WRITE ${offences}/client/alone.md "| a | b |\n")
file(WRITE ${offences}/client/right.md "| a | b |\n|:-:|---|\n| 1 \\| 2 | 3 |\n\n```\n| no | table\n```\n")
add_test(NAME Style.FindsEachOffence COMMAND ${CMAKE_CURRENT_LIST_DIR}/style ${offences})
set_tests_properties(Style.FindsEachOffence PROPERTIES
  PASS_REGULAR_EXPRESSION "left to do:.client/climbs.cc:2.*once:.*twice.h.*users':.*twice.h:1.*a path:.client/climbs.cc:1.*as many cells:...client/alone.md:1: a table of one.*blank.md:6: a table without a head.*cells.h:4: 3 cells, not 2.*cells.h:5: 1 cells.*cells.h:6: a row without an end.*includes export.h:.*hidden.h.*namespace.*:.*hidden.h:2.*function.*:.*hidden.h:3")
add_test(NAME Style.PassesWhatIsRight COMMAND ${CMAKE_CURRENT_LIST_DIR}/style ${offences})
set_tests_properties(Style.PassesWhatIsRight PROPERTIES FAIL_REGULAR_EXPRESSION "right.md" PASS_REGULAR_EXPRESSION "left to do")

add_test(NAME PublicHeaders.SayThatTheyNeedCxx20 COMMAND ${CMAKE_COMMAND} -DCOMPILER=${CMAKE_CXX_COMPILER} -DSOURCE=${PROJECT_SOURCE_DIR}
  -P ${CMAKE_CURRENT_LIST_DIR}/old_standard.cmake)

# What says that memory is watched, with each compiler that there is, and each of its sanitizers.
find_program(clang_of_the_system NAMES clang++ clang++-19 clang++-14)
set(compilers ${CMAKE_CXX_COMPILER})
if(clang_of_the_system AND NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
  list(APPEND compilers ${clang_of_the_system})
endif()
foreach(compiler ${compilers})
  get_filename_component(compiler_name ${compiler} NAME)
  foreach(sanitizer none address thread memory)
    if(sanitizer STREQUAL none)
      set(option -DWATCHED=false)
    else()
      set(option -DWATCHED=true -fsanitize=${sanitizer})
    endif()
    if(NOT (sanitizer STREQUAL memory AND compiler_name MATCHES "^(c|g)\\+\\+"))  # clang's only
      add_test(NAME MemoryIsWatched.${compiler_name}_${sanitizer} COMMAND ${compiler} -std=c++20 -fsyntax-only ${option}
        -I${PROJECT_SOURCE_DIR}/reactor ${CMAKE_CURRENT_LIST_DIR}/layers/sanitized.cc)
    endif()
  endforeach()
endforeach()

# Built by users, nothing is sanitized: what follows would only be said again, or not link.
if(ANTEROOM_SANITIZE)
  return()
endif()

add_test(NAME PublicHeaders.CompileAlone COMMAND ${CMAKE_COMMAND} -DBUILD=${PROJECT_BINARY_DIR} -DSOURCE=${PROJECT_SOURCE_DIR}
  -P ${CMAKE_CURRENT_LIST_DIR}/headers.cmake)
set_tests_properties(PublicHeaders.CompileAlone PROPERTIES RUN_SERIAL ON)  # it has work for every core

# anteroom_consumer_test(name options...): configures, builds and runs the project in consumer/ with these cache entries.
# They begin anew whenever this file is read, which is also when the checkout has moved.
file(REMOVE_RECURSE ${CMAKE_CURRENT_BINARY_DIR}/consumer)
set(prefix ${CMAKE_CURRENT_BINARY_DIR}/installed)
function(anteroom_consumer_test name)
  add_test(NAME Consumer.${name} COMMAND ${CMAKE_CTEST_COMMAND}
    --build-and-test ${CMAKE_CURRENT_LIST_DIR}/consumer ${CMAKE_CURRENT_BINARY_DIR}/consumer/${name}
    --build-generator ${CMAKE_GENERATOR} --build-makeprogram ${CMAKE_MAKE_PROGRAM} --build-noclean
    --build-options -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_UNITY_BUILD=ON ${ARGN}
    --test-command ${CMAKE_CTEST_COMMAND} --output-on-failure)
  set_tests_properties(Consumer.${name} PROPERTIES RUN_SERIAL ON)
endfunction()

if(ANTEROOM_INSTALL)
  add_test(NAME Installed.HasThePublicHeadersAndNoTests COMMAND ${CMAKE_COMMAND} -DBUILD=${PROJECT_BINARY_DIR}
    -DSOURCE=${PROJECT_SOURCE_DIR} -DPREFIX=${prefix} -P ${CMAKE_CURRENT_LIST_DIR}/consumer/install.cmake)
  set_tests_properties(Installed.HasThePublicHeadersAndNoTests PROPERTIES FIXTURES_SETUP installed)
  anteroom_consumer_test(LinksWhatIsInstalled -DCMAKE_PREFIX_PATH=${prefix})
  anteroom_consumer_test(LinksWhatWasMovedSince -DCMAKE_PREFIX_PATH=${prefix}-moved)
  set_tests_properties(Consumer.LinksWhatIsInstalled Consumer.LinksWhatWasMovedSince PROPERTIES FIXTURES_REQUIRED installed)
endif()
anteroom_consumer_test(HasItAsAPartOfItself -DANTEROOM_SOURCE=${PROJECT_SOURCE_DIR})
set(hidden -DCMAKE_CXX_VISIBILITY_PRESET=hidden -DCMAKE_VISIBILITY_INLINES_HIDDEN=ON)
anteroom_consumer_test(LinksSharedLibrariesWithHiddenSymbols -DANTEROOM_SOURCE=${PROJECT_SOURCE_DIR} -DBUILD_SHARED_LIBS=ON ${hidden}
  -DANTEROOM_INSTALL=ON)
anteroom_consumer_test(LinksWhatAnotherProjectInstalled ${hidden} -DOWN=ON
  -DCMAKE_PREFIX_PATH=${CMAKE_CURRENT_BINARY_DIR}/consumer/LinksSharedLibrariesWithHiddenSymbols/installed)
set_tests_properties(Consumer.LinksSharedLibrariesWithHiddenSymbols PROPERTIES FIXTURES_SETUP installed_by_another)
set_tests_properties(Consumer.LinksWhatAnotherProjectInstalled PROPERTIES FIXTURES_REQUIRED installed_by_another)
