#pragma once
#include <anteroom/export.h>
#include <anteroom/fd.h>
#include <anteroom/listener.h>
#include <sys/types.h>

#include <string>
#include <string_view>
#include <system_error>
#include <vector>

/// What a service manager (systemd, or whoever speaks its protocols) and its service have to say to each
/// other: listeners that it opened for us, sd_listen_fds(3), and how we are, sd_notify(3). Without
/// libsystemd.
namespace ANTEROOM_EXPORT anteroom {

/// A listener, and the name under which it came to this process.
struct NamedListener {
  std::string name;
  Listener listener;
};

/// Takes over a descriptor that came from another process, if it is a stream socket that listens. It is
/// shared with that process from now on (Listener::is_shared()). What a predecessor that ended in its drain
/// has left on it is taken off: the filter of refuse_syns(), and the program that steers its SO_REUSEPORT
/// group; so a program of yours is attached after this. Throws std::system_error (invalid_argument), with
/// `name` in it, for anything else; the descriptor is closed then.
ANTEROOM_EXPORT Listener adopt_listener(Fd socket, std::string_view name);

/// A descriptor, and the name under which the service manager passed it.
struct NamedDescriptor {
  std::string name;  ///< FileDescriptorName= of the unit; "unknown" if there is none
  Fd fd;
};

struct ActivationOptions {
  /// LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES stay in the environment; else they are taken out, whatever was
  /// found, so that nobody whom we start takes the descriptors to be there.
  bool keep_environment = false;
};

/// What the service manager has passed to this process, in its order; nothing if LISTEN_PID is not our
/// process id. All of it is closed on exec from now on.
///
/// To be called once, and before there are other threads: it changes the environment. Throws
/// std::system_error if the variables say what cannot be, or name descriptors that are not open.
ANTEROOM_EXPORT std::vector<NamedDescriptor> activated_descriptors(const ActivationOptions& options = {});

/// The same, if all of it is stream sockets that listen; throws std::system_error that says which is not.
///
/// The manager keeps the sockets open: connections that arrive while no process serves wait for the next one.
/// So these are shared (Listener::is_shared()), and a drain leaves them to the manager as they are. The
/// backlog, and what accepted connections inherit, are the socket unit's (Backlog=, NoDelay=, KeepAlive=;
/// systemd.socket(5)).
ANTEROOM_EXPORT std::vector<NamedListener> activated_listeners(const ActivationOptions& options = {});

/// Whether there is somebody to notify: NOTIFY_SOCKET is set.
ANTEROOM_EXPORT bool has_service_manager() noexcept;

/// Tells the service manager, "NAME=value", one a line: see sd_notify(3). No error if it was told, or if
/// there is none. Waits while its queue is full, for five seconds at most: then timed_out. Nothing to tell is
/// an invalid_argument, as is a process below 1.
ANTEROOM_EXPORT std::error_code notify_service_manager(std::string_view state) noexcept;

ANTEROOM_EXPORT std::error_code notify_ready() noexcept;  ///< READY=1: we serve; also at the end of reloading
ANTEROOM_EXPORT std::error_code notify_stopping() noexcept;  ///< STOPPING=1: we drain
/// RELOADING=1, with the time (MONOTONIC_USEC) that Type=notify-reload asks for.
ANTEROOM_EXPORT std::error_code notify_reloading() noexcept;
/// MAINPID: this process is the service now, and not the one that the manager started. It listens to other
/// processes than that if the unit has NotifyAccess=all.
ANTEROOM_EXPORT std::error_code notify_main_process(pid_t process) noexcept;

}  // namespace anteroom
