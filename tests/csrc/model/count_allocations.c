/* Counts what a process allocates: preload it, and call allocations() in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_long count;

long allocations(void) { return atomic_load(&count); }

#define COUNTED(name, parameters, arguments)                     \
    void *name parameters {                                      \
        static void *(*next) parameters;                         \
        if (next == NULL) next = dlsym(RTLD_NEXT, #name);        \
        atomic_fetch_add(&count, 1);                             \
        return next arguments;                                   \
    }

COUNTED(malloc, (size_t size), (size))
COUNTED(aligned_alloc, (size_t alignment, size_t size), (alignment, size))
