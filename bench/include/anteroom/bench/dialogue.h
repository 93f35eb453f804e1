#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace anteroom::bench {

/// What a client says to a server, and by what answer it knows that it was served.
struct Dialogue {
  std::string request;  ///< said when it is connected; empty if the server speaks first
  std::string expect;   ///< what the answer has to contain; empty if any byte will do
  /// The answer is HTTP/1.x, and has to have a status of 200 to 399. Interim responses before it (1xx, but
  /// for 101) are read past, and are not searched for `expect`.
  bool is_http = false;
  /// The server ends the conversation when it has answered. Else the client does, as soon as it is served.
  bool server_closes = true;

  /// Any byte at all will do.
  bool takes_any_answer() const noexcept { return expect.empty() && !is_http; }

  enum class Verdict { kGoOn, kServed, kAnsweredOtherwise };
  /// Of what has been heard so far, from the first byte on. kGoOn: it may yet become an answer.
  Verdict judge(std::string_view heard) const noexcept;

  friend bool operator==(const Dialogue&, const Dialogue&) = default;
};

/// What follows the interim HTTP responses (1xx, but for 101) that `heard` begins with; all of it if there
/// are none, and nothing as long as the head of the last one has not ended.
std::string_view final_response(std::string_view heard) noexcept;

/// "GET <path> HTTP/1.1" to `host`, asking the server to close. The zone of an address, as in
/// "[fe80::1%lo]:8080", is left out.
Dialogue http_dialogue(std::string_view path, std::string_view host);

/// "PING\r\n" as it is typed, with \r \n \t \0 \\ \xHH; nothing if a backslash is followed by anything else.
std::optional<std::string> unescape(std::string_view typed);
/// The same the other way round, for a line of text: nothing in it moves a terminal's cursor.
std::string escape(std::string_view bytes);

}  // namespace anteroom::bench
