# cmake --install: the library, the command line, the headers under include/mgic, and a package for find_package(mgic).
install(TARGETS mgic mgic_options EXPORT mgic-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS mgic_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(folder core backends autograd layers models data train)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mgic FILES_MATCHING PATTERN "*.h")
endforeach()
install(EXPORT mgic-targets NAMESPACE mgic:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mgic)
file(WRITE ${CMAKE_BINARY_DIR}/mgic-config.cmake
  "include(CMakeFindDependencyMacro)\nfind_dependency(fmt)\nfind_dependency(nlohmann_json)\n"
  "include(\${CMAKE_CURRENT_LIST_DIR}/mgic-targets.cmake)\n")
install(FILES ${CMAKE_BINARY_DIR}/mgic-config.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mgic)
