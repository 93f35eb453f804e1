#pragma once
#include <anteroom/endpoint.h>
#include <anteroom/export.h>
#include <anteroom/fd.h>

#include <string>
#include <string_view>
#include <system_error>

/// The socket calls made less boring: results as values, errors as std::error_code.
namespace ANTEROOM_EXPORT anteroom {

/// errno as a std::error_code.
ANTEROOM_EXPORT std::error_code last_error() noexcept;

/// What setting up throws: "bind 127.0.0.1:80: Permission denied".
ANTEROOM_EXPORT std::system_error setup_error(std::error_code error, std::string_view tried,
                                              std::string_view on);

/// The same for an argument that makes no sense (invalid_argument): "set idle_deadline to -5 ms: Invalid
/// argument".
ANTEROOM_EXPORT std::system_error argument_error(std::string_view tried, std::string_view on);

/// A stream socket that is non-blocking and closed on exec. On failure the descriptor is not open and `error`
/// says why.
ANTEROOM_EXPORT Fd open_stream_socket(int family, std::error_code& error) noexcept;

/// setsockopt(2) with an int.
ANTEROOM_EXPORT std::error_code set_socket_option(int fd, int level, int name, int value) noexcept;

/// SO_ERROR, which the kernel forgets once it has been read; or why it could not be read.
ANTEROOM_EXPORT std::error_code take_socket_error(int fd) noexcept;

/// getsockname(2), getpeername(2); no address where the kernel gives none (a peer that has reset already).
ANTEROOM_EXPORT Endpoint local_endpoint(int fd) noexcept;
ANTEROOM_EXPORT Endpoint peer_endpoint(int fd) noexcept;

/// From now on close(2) sends RST instead of FIN, and throws away what was not sent yet (SO_LINGER with time
/// 0, socket(7)). `fd` is an open socket.
ANTEROOM_EXPORT void reset_on_close(int fd) noexcept;

}  // namespace anteroom
