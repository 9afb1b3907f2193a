# Cross-compiles for AArch64 Linux with Debian's g++-aarch64-linux-gnu; what comes out runs under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)  # qemu then needs no libraries of the other architecture
