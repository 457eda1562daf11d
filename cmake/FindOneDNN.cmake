# oneDNN by header and library: its own CMake package asks for OpenCL on Debian, which nothing here needs.
find_path(OneDNN_INCLUDE_DIR dnnl.hpp PATH_SUFFIXES "" oneapi/dnnl)
find_library(OneDNN_LIBRARY dnnl)
find_path(OneDNN_VERSION_DIR dnnl_version.h PATH_SUFFIXES oneapi/dnnl "" HINTS ${OneDNN_INCLUDE_DIR})
if(OneDNN_VERSION_DIR)
  file(READ ${OneDNN_VERSION_DIR}/dnnl_version.h text)
  foreach(part MAJOR MINOR PATCH)
    string(REGEX MATCH "DNNL_VERSION_${part} +([0-9]+)" match "${text}")
    set(OneDNN_${part} ${CMAKE_MATCH_1})
  endforeach()
  set(OneDNN_VERSION ${OneDNN_MAJOR}.${OneDNN_MINOR}.${OneDNN_PATCH})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OneDNN REQUIRED_VARS OneDNN_LIBRARY OneDNN_INCLUDE_DIR VERSION_VAR OneDNN_VERSION
  REASON_FAILURE_MESSAGE "scripts/setup.sh installs it (Debian: libdnnl-dev)")
if(OneDNN_FOUND AND NOT TARGET OneDNN::OneDNN)
  add_library(OneDNN::OneDNN UNKNOWN IMPORTED)
  set_target_properties(OneDNN::OneDNN PROPERTIES IMPORTED_LOCATION ${OneDNN_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${OneDNN_INCLUDE_DIR})
endif()
