# Warnings, optimisation and sanitizers, shared by every target of the project. Nothing is built for the machine at
# hand only (no -march=native): kernels dispatch at run time.
add_library(mgic_options INTERFACE)
target_compile_options(mgic_options INTERFACE
  $<BUILD_INTERFACE:-Wall -Wextra -Wno-sign-compare -Wno-missing-field-initializers>)
if(MGIC_SANITIZE)
  target_compile_options(mgic_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${MGIC_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(mgic_options INTERFACE $<BUILD_INTERFACE:-fsanitize=${MGIC_SANITIZE}>)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
