// What becomes of a file that an option names, in directories where others are at work too.
#include <anteroom/fd.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "output.h"
#include "report/documents.h"
#include "support/program.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr uid_t kSomebody = 54321;  // neither ours nor root's
constexpr int kSkipped = 77;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct stat status_of(const std::string& path) {
  struct stat status {};
  ::lstat(path.c_str(), &status);
  return status;
}

mode_t mode_of(const std::string& path) { return status_of(path).st_mode & 07777; }

class OutputFile : public testing::Test {
 protected:
  OutputFile() {
    std::string name = (fs::temp_directory_path() / "anteroom-output-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) directory_ = name;
  }
  ~OutputFile() override { fs::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  std::set<std::string> names(const std::string& of = {}) const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(of.empty() ? directory_ : fs::path(of)))
      names.insert(entry.path().filename().string());
    return names;
  }

 private:
  fs::path directory_;
};

/// A mount namespace of the calling process' own, as root there; false without one.
bool enter_own_mounts() {
  const std::string users = "0 " + std::to_string(::geteuid()) + " 1";
  const std::string groups = "0 " + std::to_string(::getegid()) + " 1";
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << users;
    std::ofstream("/proc/self/gid_map") << groups;
  }
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// Runs it in a child with a mount namespace of its own. Its status; kSkipped without one.
int in_own_mounts(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(enter_own_mounts() ? work() : kSkipped);
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(OutputFile, IsNotWrittenThroughALinkThatSomebodyHasPutBesideIt) {
  std::ofstream(path("victim")) << "precious";
  fs::create_symlink(path("victim"), path("out.part"));
  fs::create_symlink(path("made by root"), path("other.part"));
  EXPECT_EQ(output_problem(path("out")), "");
  EXPECT_EQ(write_output(path("out"), "new"), "");
  EXPECT_EQ(write_output(path("other"), "new"), "");
  EXPECT_EQ(text_of(path("victim")), "precious");
  EXPECT_EQ(text_of(path("out")), "new");
  EXPECT_EQ(names(), (std::set<std::string>{"other", "other.part", "out", "out.part", "victim"}));
}

TEST_F(OutputFile, DoesNotWaitForAPipeThatSomebodyHasPutBesideIt) {
  ASSERT_EQ(::mkfifo(path("out.part").c_str(), 0600), 0);
  EXPECT_EQ(output_problem(path("out")), "");
  EXPECT_EQ(write_output(path("out"), "new"), "");
  EXPECT_EQ(text_of(path("out")), "new");
}

TEST_F(OutputFile, LeavesAFileOfASimilarNameAlone) {
  std::ofstream(path("out.part")) << "half written";
  EXPECT_EQ(output_problem(path("out")), "");
  EXPECT_EQ(write_output(path("out"), "new"), "");
  EXPECT_EQ(text_of(path("out.part")), "half written");
}

TEST_F(OutputFile, KeepsTheModeOfWhatItReplaces) {
  for (const mode_t mode : {0600U, 0644U, 0640U, 0400U, 0777U}) {
    std::ofstream(path("out")) << "old";
    ASSERT_EQ(::chmod(path("out").c_str(), mode), 0);
    EXPECT_EQ(write_output(path("out"), "new"), "");
    EXPECT_EQ(mode_of(path("out")), mode);
    EXPECT_EQ(text_of(path("out")), "new");
    ASSERT_EQ(::unlink(path("out").c_str()), 0);
  }
  const mode_t before = ::umask(027);
  EXPECT_EQ(write_output(path("new"), "new"), "");
  ::umask(before);
  EXPECT_EQ(mode_of(path("new")), 0640U) << "what is new has what the umask leaves of 0666";
}

TEST_F(OutputFile, IsNoProgramThatRunsAsSomebodyElse) {
  std::ofstream(path("out")) << "old";
  ASSERT_EQ(::chmod(path("out").c_str(), 06755), 0);
  EXPECT_EQ(write_output(path("out"), "new"), "");
  EXPECT_EQ(mode_of(path("out")), 0755U);
}

TEST_F(OutputFile, KeepsTheOwnerOfWhatItReplaces) {
  std::ofstream(path("out")) << "old";
  if (::chown(path("out").c_str(), kSomebody, kSomebody) != 0) GTEST_SKIP() << "may not give a file away";
  ::chmod(path("out").c_str(), 0600);
  EXPECT_EQ(write_output(path("out"), "new"), "");
  EXPECT_EQ(status_of(path("out")).st_uid, kSomebody);
  EXPECT_EQ(status_of(path("out")).st_gid, kSomebody);
  EXPECT_EQ(mode_of(path("out")), 0600U);
}

TEST_F(OutputFile, IsWhereALinkOfOursLeads) {
  fs::create_directory(path("runs"));
  std::ofstream(path("runs/1")) << "old";
  fs::create_symlink("runs/1", path("latest"));
  fs::create_symlink("latest", path("again"));
  fs::create_symlink(path("runs/2"), path("next"));
  fs::create_symlink("loop", path("loop"));
  EXPECT_EQ(output_problem(path("again")), "");
  EXPECT_EQ(write_output(path("again"), "new"), "");
  EXPECT_EQ(text_of(path("runs/1")), "new");
  EXPECT_TRUE(fs::is_symlink(path("latest")));
  EXPECT_TRUE(fs::is_symlink(path("again")));
  EXPECT_EQ(write_output(path("next"), "second"), "");
  EXPECT_EQ(text_of(path("runs/2")), "second");
  EXPECT_EQ(names(path("runs")), (std::set<std::string>{"1", "2"}));
  EXPECT_THAT(output_problem(path("loop")), HasSubstr("Too many levels of symbolic links"));
  EXPECT_THAT(output_problem(path("")), HasSubstr("Is a directory"));
  EXPECT_THAT(output_problem(path("runs")), HasSubstr("Is a directory"));
  EXPECT_THAT(output_problem(path("nowhere/out")), HasSubstr("No such file or directory"));
}

TEST_F(OutputFile, IsNotWhereALinkOfAnotherUserLeads) {
  std::ofstream(path("victim")) << "precious";
  fs::create_symlink(path("victim"), path("out"));
  fs::create_symlink(path("made by root"), path("dangling"));
  for (const char* const name : {"out", "dangling"}) {
    if (::lchown(path(name).c_str(), kSomebody, kSomebody) != 0) GTEST_SKIP() << "may not give a link away";
    EXPECT_THAT(output_problem(path(name)), HasSubstr("a symbolic link of another user (uid 54321)"));
    EXPECT_THAT(write_output(path(name), "new"), HasSubstr("a symbolic link of another user (uid 54321)"));
  }
  EXPECT_EQ(text_of(path("victim")), "precious");
  EXPECT_EQ(names(), (std::set<std::string>{"dangling", "out", "victim"}));
}

TEST_F(OutputFile, IsNotWhatAnotherUserHasPutIntoADirectoryOfEverybody) {
  ASSERT_EQ(::chmod(path(".").c_str(), 01777), 0);
  std::ofstream(path("file")) << "old";
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0666), 0);
  for (const char* const name : {"file", "pipe"}) {
    EXPECT_EQ(output_problem(path(name)), "") << "it is ours";
    if (::chown(path(name).c_str(), kSomebody, kSomebody) != 0) GTEST_SKIP() << "may not give a file away";
    EXPECT_THAT(output_problem(path(name)), HasSubstr("another user has made it"));
    EXPECT_THAT(write_output(path(name), "new"), HasSubstr("another user has made it"));
  }
  EXPECT_EQ(text_of(path("file")), "old");
  ASSERT_EQ(::chmod(path(".").c_str(), 0755), 0);
  EXPECT_EQ(write_output(path("file"), "new"), "") << "nobody but us could have put it here";
}

TEST_F(OutputFile, MayBeAPipeOrADeviceOrADescriptor) {
  EXPECT_EQ(write_output("/dev/null", "text"), "");
  EXPECT_EQ(write_output("/dev/full", "text"), "cannot write /dev/full: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));

  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(output_problem(path("pipe")), "");
  const Fd reader(::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  EXPECT_EQ(write_output(path("pipe"), "through a pipe"), "");
  std::array<char, 64> bytes{};
  EXPECT_EQ(::read(reader.get(), bytes.data(), bytes.size()), 14);
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
  EXPECT_EQ(names(), std::set<std::string>{"pipe"});

  // A descriptor by its name: written where it stands, and what it is of is not replaced.
  const Fd file(::open(path("log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::write(file.get(), "text, ", 6), 6);
  const ino_t inode = status_of(path("log")).st_ino;
  const std::string name = "/proc/self/fd/" + std::to_string(file.get());
  EXPECT_EQ(output_problem(name), "");
  EXPECT_EQ(write_output(name, "JSON"), "");
  EXPECT_EQ(text_of(path("log")), "text, JSON");
  EXPECT_EQ(status_of(path("log")).st_ino, inode);
  const std::string unreadable = "/dev/fd/" + std::to_string(reader.get());
  EXPECT_THAT(output_problem(unreadable), HasSubstr("Bad file descriptor"));
}

TEST_F(OutputFile, OnAFullDiskLeavesTheOldOneAndNothingElse) {
  const std::string disk = path("disk");
  fs::create_directory(disk);
  const int status = in_own_mounts([&] {
    if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) return kSkipped;
    if (!write_output(disk + "/out", "old").empty()) return 1;
    const std::string problem = write_output(disk + "/out", std::string(1 << 20, 'x'));
    if (problem != "cannot write " + disk + "/out: No space left on device") return 2;
    if (text_of(disk + "/out") != "old") return 3;
    return names(disk) == std::set<std::string>{"out"} ? 0 : 4;
  });
  if (status == kSkipped) GTEST_SKIP() << "no mount namespace here";
  EXPECT_EQ(status, 0);
}

TEST_F(OutputFile, IsWrittenWhereAFileHasToHaveANameAtOnce) {
  // Without /proc a file without a name could not get one.
  const int status = in_own_mounts([&] {
    if (::mount("tmpfs", "/proc", "tmpfs", 0, "") != 0) return kSkipped;
    std::ofstream(path("out")) << "old";
    ::chmod(path("out").c_str(), 0640);
    if (!write_output(path("out"), "new").empty()) return 1;
    if (!output_problem(path("fresh")).empty()) return 2;
    if (text_of(path("out")) != "new" || mode_of(path("out")) != 0640) return 3;
    return names() == std::set<std::string>{"out"} ? 0 : 4;
  });
  if (status == kSkipped) GTEST_SKIP() << "no mount namespace here";
  EXPECT_EQ(status, 0);
}

TEST_F(OutputFile, ThatIsAMountOfItsOwnIsWrittenInPlace) {
  // As docker run -v FILE:FILE makes one: nothing can be renamed to it.
  std::ofstream(path("out")) << "an old and longer text";
  const int status = in_own_mounts([&] {
    if (::mount(path("out").c_str(), path("out").c_str(), nullptr, MS_BIND, nullptr) != 0) return kSkipped;
    if (!write_output(path("out"), "new").empty()) return 1;
    return text_of(path("out")) == "new" ? 0 : 2;
  });
  if (status == kSkipped) GTEST_SKIP() << "no mount namespace here";
  EXPECT_EQ(status, 0);
  EXPECT_EQ(names(), std::set<std::string>{"out"});
}

TEST_F(OutputFile, BeyondTheLimitOfFileSizesIsAnErrorInOneLine) {
  std::ofstream(path("run.json")) << test::tune_run().dump();
  std::ofstream(path("out.html")) << "old";
  test::Program program({PROGRAMS "/anteroom", "report", path("run.json"), "-o", path("out.html")}, [] {
    const rlimit few{.rlim_cur = 4096, .rlim_max = 4096};
    ::setrlimit(RLIMIT_FSIZE, &few);
    ::signal(SIGXFSZ, SIG_DFL);
  });
  EXPECT_EQ(program.wait(60s), 1);
  EXPECT_EQ(program.errors, "anteroom: cannot write " + path("out.html") + ": File too large\n");
  EXPECT_EQ(text_of(path("out.html")), "old");
  EXPECT_EQ(names(), (std::set<std::string>{"out.html", "run.json"}));
}

/// A process that writes the file again and again, in mounts of its own if it is to have no /proc; ended by
/// `signal` after the first time. False if it could not begin.
bool is_ended_while_writing(const std::string& path, const std::string& text, int signal, bool has_proc) {
  std::array<int, 2> begun{};
  if (::pipe(begun.data()) != 0) return false;
  const pid_t writer = ::fork();
  if (writer == 0) {
    for (const int each : {SIGINT, SIGTERM}) ::signal(each, SIG_DFL);
    const auto write_for_ever = [&] {
      if (!has_proc && ::mount("tmpfs", "/proc", "tmpfs", 0, "") != 0) return kSkipped;
      for (int i = 0; write_output(path, text).empty(); ++i) {
        if (i == 0) (void)!::write(begun[1], "", 1);
      }
      return 1;
    };
    ::_exit(has_proc ? write_for_ever() : (enter_own_mounts() ? write_for_ever() : kSkipped));
  }
  ::close(begun[1]);
  char nothing = 0;
  const bool has_begun = ::read(begun[0], &nothing, 1) == 1;
  ::close(begun[0]);
  ::kill(writer, signal);
  int status = 0;
  ::waitpid(writer, &status, 0);
  return has_begun && WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

TEST_F(OutputFile, IsWholeAndAloneHoweverItsWriterIsEnded) {
  const std::string text(4 << 20, 'x');
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    EXPECT_TRUE(is_ended_while_writing(path("out"), text, signal, true)) << signal;
    EXPECT_EQ(text_of(path("out")).size(), text.size()) << signal;
    // Between link(2) and rename(2) SIGKILL leaves a name.
    if (signal == SIGKILL) continue;
    EXPECT_EQ(names(), std::set<std::string>{"out"}) << signal;
  }
}

TEST_F(OutputFile, IsAloneThoughItHadANameWhenItsWriterWasEnded) {
  const std::string text(4 << 20, 'x');
  for (const int signal : {SIGINT, SIGTERM}) {
    if (!is_ended_while_writing(path("out"), text, signal, false)) GTEST_SKIP() << "no mount namespace here";
    EXPECT_EQ(text_of(path("out")).size(), text.size()) << signal;
    EXPECT_EQ(names(), std::set<std::string>{"out"}) << signal;
  }
}

}  // namespace
}  // namespace anteroom::tool
