using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>nbd-client, as far as it goes without the kernel's help.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdClientTests
{
    [Test]
    public async Task Exports_are_listed([Values] SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(NbdBackend.Compose(new ExportsPlugin()), socket);
        string[] where = socket == SocketKind.Unix ? ["-unix", server.SocketPath] : ["127.0.0.1", $"{server.Port}"];

        string list = await Peer.OutputAsync("nbd-client", ["-l", .. where]);

        foreach (string name in ExportsPlugin.Names)
        {
            Assert.That(list, Does.Contain(name));
        }
    }

    [Test]
    public async Task A_list_that_is_not_offered_is_refused()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 512 }), options: new NbdServerOptions { OfferList = false });

        PeerResult result = await Peer.RunAsync("nbd-client", "-l", "-unix", server.SocketPath);

        Assert.That(result.ToString(), Does.Contain("listing not allowed by server"));
    }
}
