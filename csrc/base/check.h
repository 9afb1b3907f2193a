// The exception types of the core and the way their messages are built.
//
// One C++ class per class of pocketvlm.errors; the Python module translates them by name. Exceptions belong
// to the code above the kernels: kernels trust what they are given and throw nothing.
#pragma once

#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

namespace pocketvlm {

class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// A file whose content is not what it must be.
class FormatError : public Error {
  public:
    using Error::Error;
};

// An ISA, a type or an architecture that this build or this CPU does not have.
class UnsupportedError : public Error {
  public:
    using Error::Error;
};

// The work would not fit into memory; thrown before it starts.
class OutOfBudgetError : public Error {
  public:
    using Error::Error;
};

// An argument that the caller must correct: a path that is not there, an array of the wrong shape.
class InputError : public Error {
  public:
    using Error::Error;
};

// The caller's stop flag was set.
class Cancelled : public Error {
  public:
    using Error::Error;
};

// Joins its arguments as operator<< prints them: concat("found ", 3, ", expected ", 4). An (u)int8_t prints
// as a character, as streams do: widen it first. The host program's locale is left out: 49280 stays "49280".
template <typename... Parts>
std::string concat(const Parts&... parts) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    (out << ... << parts);
    return out.str();
}

}  // namespace pocketvlm
