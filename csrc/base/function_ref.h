// A reference to something callable, for parameters that are called before the function returns: unlike
// std::function it never allocates. What it refers to has to outlive it.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace pocketvlm {

template <typename Signature>
class FunctionRef;

template <typename Result, typename... Args>
class FunctionRef<Result(Args...)> {
  public:
    template <typename F, typename = std::enable_if_t<!std::is_same_v<std::decay_t<F>, FunctionRef>>>
    FunctionRef(F&& function) noexcept  // NOLINT(runtime/explicit)
        : target_(const_cast<void*>(static_cast<const void*>(std::addressof(function)))),
          call_([](void* target, Args... args) -> Result {
              return (*static_cast<std::remove_reference_t<F>*>(target))(std::forward<Args>(args)...);
          }) {}

    Result operator()(Args... args) const { return call_(target_, std::forward<Args>(args)...); }

  private:
    void* target_;
    Result (*call_)(void* target, Args... args);
};

}  // namespace pocketvlm
