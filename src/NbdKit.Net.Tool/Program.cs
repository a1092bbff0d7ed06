using System.Net.Sockets;
using NbdKit;
using NbdKit.Plugins;

var server = new NbdServer(
    NbdBackend.Compose(new MemoryPlugin { Size = NbdParse.Size(args[3]) }),
    new NbdServerOptions { EndPoints = [new UnixDomainSocketEndPoint(args[1])] });
await server.StartAsync().ConfigureAwait(false);
await server.Stopped.ConfigureAwait(false);
