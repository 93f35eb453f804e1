# The page of `anteroom report`: tools/CMakeLists.txt includes this after it has added anteroom_tool. Its pieces become part
# of report.cc as they are compiled, so a change of one of them compiles it again.
file(GLOB report_pieces CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/page.* ${CMAKE_CURRENT_LIST_DIR}/*.js
  ${CMAKE_CURRENT_LIST_DIR}/third_party/uPlot/*)
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH tools_folder)
target_sources(anteroom_tool PRIVATE ${tools_folder}/report.cc)
set_source_files_properties(${tools_folder}/report.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON
  COMPILE_DEFINITIONS "REPORT=\"${CMAKE_CURRENT_LIST_DIR}\"" OBJECT_DEPENDS "${report_pieces}")
