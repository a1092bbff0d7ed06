using System.Net.Sockets;
using NbdKit;
using NbdKit.Plugins;

await using var server = new NbdServer(
    NbdBackend.Compose(new MemoryPlugin { Size = NbdParse.Size(args[3]) }),
    new NbdServerOptions { EndPoints = [new UnixDomainSocketEndPoint(args[1])] });
await server.StartAsync();
await server.Stopped;
