using System.Net.Sockets;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Listening on a vsock. Connecting takes a virtual machine, or a kernel with a loopback of its own.</summary>
public sealed class VsockListenTests
{
    [Test]
    public async Task A_server_listens_on_a_vsock_and_stops()
    {
        var server = new NbdServer(
            NbdBackend.Compose(new TestPlugin()),
            new NbdServerOptions { EndPoints = [new VsockEndPoint(VsockEndPoint.AnyCid, uint.MaxValue)] });
        try
        {
            await server.StartAsync();
        }
        catch (SocketException e) when (e.SocketErrorCode != SocketError.Fault)
        {
            await server.DisposeAsync();
            Assert.Ignore($"There are no vsocks here: {e.Message}");
        }
        await using (server)
        {
            var endPoint = (VsockEndPoint)server.EndPoints[0];
            Assert.That(endPoint.Cid, Is.EqualTo(VsockEndPoint.AnyCid));
            Assert.That(endPoint.Port, Is.Not.EqualTo(uint.MaxValue).And.Not.Zero, "the port is resolved");
            string[] uris = endPoint.Port > 65_535 ? [] : [$"nbd+vsock://1:{endPoint.Port}/"];
            Assert.That(server.Uris.Select(uri => uri.OriginalString), Is.EqualTo(uris));
        }
    }
}
