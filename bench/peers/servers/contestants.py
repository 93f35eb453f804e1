"""Who takes part: the peers' servers beside ours, from one build or from several."""
import pathlib

from hosts import Failed

PLAIN = "plain"
PEERS = (PLAIN, "libevent", "bufferevent", "libev", "libuv", "asio")


class Contestant:
    def __init__(self, name, folder, is_ours):
        self.name, self.is_ours, self._folder = name, is_ours, folder

    def command(self, service, port=0):
        """service: hello or echo."""
        if self.is_ours:
            return [self._folder / f"{service}_server", port]
        return [self._folder / f"{self.name}_server", service, port]

    def exists(self):
        return all(pathlib.Path(self.command(service)[0]).exists() for service in ("hello", "echo"))


class Contestants:
    def __init__(self, build, ours, names):
        """ours: (name, folder) pairs; names: who takes part, or None for all that were built."""
        self.tools = pathlib.Path(build) / "bin"
        all_of_them = [Contestant(name, pathlib.Path(folder), True) for name, folder in ours]
        all_of_them += [Contestant(name, self.tools, False) for name in PEERS]
        known = {one.name: one for one in all_of_them}
        if not known[PLAIN].exists():
            raise Failed(f"{self.tools} has no plain_server: cmake -S bench/peers/servers -B build/peers -G Ninja && "
                         "cmake --build build/peers")
        for one in all_of_them:
            if one.is_ours and not one.exists():
                raise Failed(f"{one.command('hello')[0].parent} has no hello_server and echo_server: "
                             "cmake --preset release && cmake --build --preset release")
        for name in names or ():
            if name not in known or not known[name].exists():
                raise Failed(f"there is no {name}: it is one of {', '.join(known)}, if it is built")
        self.plain = known[PLAIN]
        self.chosen = [known[name] for name in names] if names else [one for one in all_of_them if one.exists()]

    def tool(self, name):
        path = self.tools / name
        if not path.exists():
            raise Failed(f"{path} is missing: cmake --build build/peers")
        return path
