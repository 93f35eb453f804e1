# cmake -D NM=nm -D SEAM="accept4;bind" -D LIBRARIES="libanteroom-reactor.a;..." -P seam_is_complete.cmake
# Fails if the libraries make a system call that the torture does not wrap, or no longer make one that it does.

cmake_minimum_required(VERSION 3.25)

# Not syscall(2) itself: it is how libstdc++'s headers wait on atomics.
set(system_calls accept accept4 access bind chmod chown close close_range connect creat dup dup2 dup3 epoll_create epoll_create1
  epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd execve fchmod fcntl fcntl64 flock fork fstat fsync ftruncate getaddrinfo
  getpeername getrandom getrlimit getsockname getsockopt ioctl kill listen lseek lstat mkdir mmap open open64 openat pidfd_getfd pidfd_open pipe
  pipe2 poll ppoll pread preadv prlimit pselect pwrite pwritev read readlink readv recv recvfrom recvmmsg recvmsg rename select
  send sendfile sendmmsg sendmsg sendto setns setrlimit setsockopt shutdown signalfd socket socketpair splice stat tee
  timerfd_create timerfd_settime umask unlink unlinkat unshare vmsplice write writev)

set(used "")
foreach(library ${LIBRARIES})
  execute_process(COMMAND ${NM} --undefined-only ${library} OUTPUT_VARIABLE symbols RESULT_VARIABLE result ERROR_QUIET)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${NM} cannot read ${library}")
  endif()
  string(REGEX MATCHALL "U [A-Za-z0-9_]+" symbols "${symbols}")
  list(TRANSFORM symbols REPLACE "^U " "")
  list(APPEND used ${symbols})
endforeach()

foreach(call ${system_calls})
  if(call IN_LIST used AND NOT call IN_LIST SEAM)
    message(SEND_ERROR "the libraries call ${call}, which the torture does not wrap: add it to faults.cc and to the seam")
  endif()
endforeach()
foreach(call ${SEAM})
  if(NOT call IN_LIST used)
    message(SEND_ERROR "no library calls ${call} any more: take it out of the seam")
  endif()
endforeach()
