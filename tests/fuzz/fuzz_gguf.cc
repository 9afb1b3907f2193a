// libFuzzer target for the GGUF reader: whatever the bytes, a file is parsed or refused by a named error, and
// all of what is parsed can be read. With clang, on a folder of small GGUF files (here CORPUS):
//
//     SOURCES="tests/fuzz/fuzz_gguf.cc csrc/io/gguf.cc csrc/io/mapped_file.cc csrc/quant/quant_type.cc"
//     clang++ -std=c++17 -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc -o fuzz_gguf $SOURCES
//     ./fuzz_gguf -max_len=65536 CORPUS
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace pocketvlm;
    static const int fd = memfd_create("gguf", 0);  // the reader takes a path: this one needs no disk
    static volatile int sum = 0;                    // keeps the reads alive
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) return -1;
    try {
        const GgufFile file(concat("/proc/self/fd/", fd));
        for (const GgufTensor& tensor : file.tensors()) {
            sum = sum + tensor.data[0] + tensor.data[tensor.nbytes - 1];
        }
        for (const GgufEntry& entry : file.entries()) {
            if (entry.element_type != GgufValueType::STRING) continue;
            for (const std::string_view text : GgufStrings(entry.data, entry.count)) {
                if (!text.empty()) sum = sum + text.front() + text.back();
            }
        }
    } catch (const FormatError&) {
    } catch (const UnsupportedError&) {
    }
    return 0;
}
