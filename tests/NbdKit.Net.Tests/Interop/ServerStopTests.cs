using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The server stops while clients are connected.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ServerStopTests
{
    // Much longer than a stop takes, much shorter than the test's deadline.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    [Test]
    public async Task Idle_clients_are_told_to_leave([Values] SocketKind socket)
    {
        var opened = new CountdownEvent(3);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }),
            socket,
            new NbdServerOptions { ExportOpened = (_, _) => opened.Signal() });
        Task client = LibNbd.RunAsync(server.Uri, """
            clients = [connect() for _ in range(3)]
            for h in clients:
                while not (h.aio_is_dead() or h.aio_is_closed()):
                    try:
                        assert h.poll(20000) == 1, 'the connection is still there'
                    except nbd.Error:
                        pass
                fails(errno.EINVAL, h.pread, 512, 0)
            """);
        await Task.Run(() => Assert.That(opened.Wait(Peer.Deadline), Is.True));

        await server.Server.StopAsync().WaitAsync(Patience);

        await client;
        Assert.That(server.Server.Connections, Is.Empty);
        Assert.That(socket == SocketKind.Unix && File.Exists(server.SocketPath), Is.False);
    }

    [Test]
    public async Task A_request_in_flight_is_finished_first([Values] SocketKind socket)
    {
        var plugin = new FaultyPlugin();
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(plugin), socket, new NbdServerOptions { StopTimeout = Patience });
        Task client = LibNbd.RunAsync(server.Uri, $"""
            h = connect()
            h.pwrite(b'kept', {(int)FaultyRegion.Late * FaultyPlugin.RegionSize})
            buffer = nbd.Buffer(512)
            wait(h, h.aio_pread(buffer, {(int)FaultyRegion.Hangs * FaultyPlugin.RegionSize}))
            assert buffer.to_bytearray() == bytes(512)
            """);
        await plugin.UntilHangingAsync();

        Task stop = server.Server.StopAsync();
        Assert.That(stop.IsCompleted, Is.False);
        plugin.Release();

        await client;
        await stop.WaitAsync(Patience);
    }

    [Test]
    public async Task A_request_that_hangs_does_not_hold_up_the_stop([Values] bool heedsCancellation)
    {
        var plugin = new FaultyPlugin();
        FaultyRegion region = heedsCancellation ? FaultyRegion.Hangs : FaultyRegion.HangsForGood;
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(plugin),
            options: new NbdServerOptions { StopTimeout = TimeSpan.FromMilliseconds(200) },
            lenient: true);
        Task client = LibNbd.RunAsync(server.Uri, $"""
            h = connect()
            try:
                h.pread(512, {(int)region * FaultyPlugin.RegionSize})
                raise AssertionError('answered')
            except nbd.Error:
                pass
            """);
        await plugin.UntilHangingAsync();

        await server.Server.StopAsync().WaitAsync(Patience);
        await client;

        plugin.Release();
        await plugin.AllClosed.WaitAsync(Patience);
    }

    [Test]
    public async Task A_program_at_work_ends_with_an_error([Values] SocketKind socket)
    {
        var opened = new SemaphoreSlim(0);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }),
            socket,
            new NbdServerOptions { ExportOpened = (_, _) => opened.Release() },
            lenient: true);
        // So many requests that they take minutes.
        Task<PeerResult> client = Peer.RunAsync(
            "qemu-img", "bench", "-f", "raw", "-c", "100000000", "-d", "64", "-s", "65536", server.Uri);
        Assert.That(await opened.WaitAsync(Peer.Deadline), Is.True);

        await server.Server.StopAsync().WaitAsync(Patience);

        PeerResult result = await client;
        Assert.That(result.Status, Is.Not.Zero, result.ToString());
    }

    [Test]
    public async Task A_server_that_has_stopped_can_be_followed_by_another_for_the_same_chain()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 });
        await chain.StartAsync();
        await using (InteropServer first = await InteropServer.StartAsync(chain))
        {
            await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", "write -P 5 0 1M", first.Uri);
        }
        await using InteropServer second = await InteropServer.StartAsync(chain, SocketKind.Tcp);

        Assert.That(
            await Peer.OutputAsync("qemu-io", "-r", "-f", "raw", "-c", "read -P 5 0 1M", second.Uri), Does.Not.Contain("failed"));
    }
}
