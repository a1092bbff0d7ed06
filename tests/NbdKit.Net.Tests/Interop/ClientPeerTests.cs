using System.Globalization;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>Our client, and the nbd plugin on it, against servers that others wrote.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientPeerTests
{
    private const int Size = 8 << 20;

    /// <summary>The servers, by name.</summary>
    public static readonly string[] Servers =
        ["nbdkit memory", "nbdkit file", "qemu-nbd raw", "qemu-nbd qcow2", "nbd-server", "ours"];

    [Test]
    public async Task A_history_of_requests_has_the_same_effect_as_on_a_model(
        [ValueSource(nameof(Servers))] string kind, [Values(1, 4)] int connections)
    {
        const int Seed = 77;
        using var folder = new ScratchDirectory();
        (string uri, IAsyncDisposable server) = await StartAsync(kind, folder);
        await using IAsyncDisposable end = server;
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(uri, connections);
        Assert.That(pool.Clients, Has.Count.EqualTo(pool.Info.CanMultiConn ? connections : 1));
        var random = new Random(Seed);
        byte[] model = new byte[Size];
        for (int i = 0; i < 300; i++)
        {
            // Requests of a round do not overlap, so all of them can be in flight.
            List<Task> round = [];
            for (int part = 0; part < 8; part++)
            {
                int from = part * (Size / 8) + (512 * random.Next(1024));
                int length = 512 * random.Next(1, 600);
                round.Add(RequestAsync(pool, random.Next(5), model, from, length, random.Next()));
            }
            await Task.WhenAll(round).WaitAsync(Peer.Deadline);
            if (i % 50 == 0 && pool.Info.CanFlush)
            {
                await pool.FlushAsync().AsTask().WaitAsync(Peer.Deadline);
            }
        }

        byte[] whole = new byte[Size];
        await pool.ReadAsync(whole, 0).AsTask().WaitAsync(Peer.Deadline);
        Assert.That(whole.AsSpan().SequenceEqual(model), $"{kind}: seed {Seed}");
        if (pool.Info.CanExtents)
        {
            var extents = new ExtentList(0, Size);
            await pool.ExtentsAsync(0, Size, RequestFlags.None, extents).AsTask().WaitAsync(Peer.Deadline);
            Assert.That(extents.Covered, Is.EqualTo(Size));
            foreach (Extent extent in extents.Where(e => (e.Status & ExtentStatus.Zero) != 0))
            {
                Assert.That(model.AsSpan((int)extent.Offset, (int)extent.Length).ContainsAnyExcept((byte)0), Is.False, $"{extent}");
            }
        }
    }

    [Test]
    public async Task Programs_read_and_write_through_the_nbd_plugin(
        [ValueSource(nameof(Servers))] string kind, [Values] bool shared)
    {
        Peer.Require("nbdcopy", "qemu-img");
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(Size, 99);
        Array.Clear(content, 1 << 20, 3 << 20);
        string source = folder.Write("source", content);
        (string uri, IAsyncDisposable server) = await StartAsync(kind, folder);
        await using IAsyncDisposable end = server;
        await using InteropServer proxy = await InteropServer.StartAsync(
            new NbdPlugin { Uri = uri, Shared = shared, Connections = 2 });

        await Peer.OutputAsync("nbdcopy", "--flush", "--requests=64", source, proxy.Uri);
        await Peer.OutputAsync("nbdcopy", "--requests=64", "--connections=2", proxy.Uri, folder["copy"]);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", proxy.Uri, source);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, source);

        await SameFile.CheckAsync(folder["copy"], source, kind);
        string through = await Peer.OutputAsync("nbdinfo", "--map", proxy.Uri);
        // nbd-server has no meta contexts: then all is data.
        List<string> expected = kind == "nbd-server" ? [$"0 {Size} 0"] : Merged(await Peer.OutputAsync("nbdinfo", "--map", uri));
        Assert.That(Merged(through), Is.EqualTo(expected));
    }

    [Test]
    public async Task The_facts_of_an_export_go_through_the_nbd_plugin([ValueSource(nameof(Servers))] string kind)
    {
        using var folder = new ScratchDirectory();
        (string uri, IAsyncDisposable server) = await StartAsync(kind, folder);
        await using IAsyncDisposable end = server;
        await using NbdClient direct = await NbdClient.ConnectAsync(uri);
        await using InteropServer proxy = await InteropServer.StartAsync(new NbdPlugin { Uri = uri });
        await using NbdClient through = await NbdClient.ConnectAsync(proxy.Uri);

        Assert.That(through.Info.Size, Is.EqualTo(Size));
        Assert.That(
            (through.Info.BlockSize, through.Info.CanWrite, through.Info.CanFlush, through.Info.CanTrim, through.Info.CanMultiConn),
            Is.EqualTo((direct.Info.BlockSize, direct.Info.CanWrite, direct.Info.CanFlush, direct.Info.CanTrim, direct.Info.CanMultiConn)));
        Assert.That(through.Info.IsRotational, Is.EqualTo(direct.Info.IsRotational));
        Assert.That(through.MetaContexts, Does.Contain("base:allocation"));
    }

    [Test]
    public async Task Holes_of_nbdkits_data_plugin_are_holes_and_are_read_sparsely()
    {
        using var folder = new ScratchDirectory();
        await using BackgroundServer server = await BackgroundServer.NbdkitAsync(folder, "data", "size=1G", "data=@0x100000 1 2 3 @0x20000000 4");
        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri);
        var extents = new ExtentList(0, client.Info.Size);
        await client.ExtentsAsync(0, client.Info.Size, RequestFlags.None, extents);
        byte[] buffer = new byte[2 << 20];
        var chunks = new List<NbdReadChunk>();
        await client.ReadSparseAsync(buffer, 0, chunks.Add);

        string map = await Peer.OutputAsync("nbdinfo", "--map", server.Uri);
        Assert.That(
            extents.Select(e => $"{e.Offset} {e.Length} {(ulong)e.Status}"),
            Is.EqualTo(Merged(map)), map);
        Assert.That(buffer.AsSpan(1 << 20, 4).ToArray(), Is.EqualTo((byte[])[1, 2, 3, 0]));
        Assert.That(chunks.Sum(c => c.Length), Is.EqualTo(buffer.Length));
    }

    [TestCase("EPERM", NbdError.PermissionDenied)]
    [TestCase("EIO", NbdError.IoError)]
    [TestCase("ENOSPC", NbdError.NoSpace)]
    [TestCase("ESHUTDOWN", NbdError.Shutdown)]
    public async Task Errors_of_nbdkits_error_filter_are_told(string name, NbdError error)
    {
        using var folder = new ScratchDirectory();
        await using BackgroundServer server = await BackgroundServer.NbdkitAsync(
            folder, "--filter=error", "memory", "1M", $"error-pwrite={name}", "error-pwrite-rate=100%");
        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri);

        Assert.That(TestData.Failure(() => client.WriteAsync(new byte[512], 0).AsTask()).Error, Is.EqualTo(error));
        if (error != NbdError.Shutdown)
        {
            await client.ReadAsync(new byte[512], 0);
        }
    }

    [Test]
    public async Task A_slow_request_can_be_given_up_and_the_connection_goes_on()
    {
        using var folder = new ScratchDirectory();
        await using BackgroundServer server = await BackgroundServer.NbdkitAsync(folder, "--filter=delay", "memory", "1M", "delay-read=500ms");
        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri);
        using var stop = new CancellationTokenSource();
        byte[] buffer = new byte[4096];
        Task reading = client.ReadAsync(buffer, 0, stop.Token).AsTask();
        Task writing = client.WriteAsync(new byte[] { 7 }, 0).AsTask();
        await writing.WaitAsync(Peer.Deadline);
        await stop.CancelAsync();

        Assert.CatchAsync<OperationCanceledException>(() => reading.WaitAsync(Peer.Deadline));
        byte[] second = new byte[1];
        // nbdkit may answer two reads in any order; what was given up is answered half a second before the second of these.
        await client.ReadAsync(second, 0).AsTask().WaitAsync(Peer.Deadline);
        await client.ReadAsync(second, 0).AsTask().WaitAsync(Peer.Deadline);
        Assert.That(second[0], Is.EqualTo(7));
        Assert.That(buffer, Is.All.Zero);
        Assert.That(client.RequestsInFlight, Is.Zero);
    }

    [Test]
    public async Task Contexts_of_qemu_are_asked_for_one_by_one_all_at_once_and_through_the_plugin()
    {
        const string Depth = "qemu:allocation-depth";
        const string Dirty = "qemu:dirty-bitmap:b0";
        using var folder = new ScratchDirectory();
        string image = folder["disk.qcow2"];
        await Peer.OutputAsync("qemu-img", "create", "-f", "qcow2", image, "8M");
        await Peer.OutputAsync("qemu-io", "-f", "qcow2", "-c", "write 0 64k", image);
        await Peer.OutputAsync("qemu-img", "bitmap", "--add", "-f", "qcow2", image, "b0");
        await Peer.OutputAsync("qemu-io", "-f", "qcow2", "-c", "write 1M 64k", image);
        await using BackgroundServer server = await BackgroundServer.QemuNbdAsync(folder, "-f", "qcow2", "-A", "-B", "b0", image);
        var options = new NbdClientOptions { MetaContexts = ["base:allocation", Depth, Dirty] };
        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri, options);

        Assert.That(client.MetaContexts, Is.EquivalentTo(options.MetaContexts));
        await CheckAsync(extents => client.ExtentsAsync(0, Size, RequestFlags.None, extents));
        IReadOnlyDictionary<string, ExtentList> all = await client.ExtentsOfAllContextsAsync(0, Size);
        Assert.That(all[Depth].Take(2), Is.EqualTo((Extent[])[new(0, 64 << 10, (ExtentStatus)1), new(64 << 10, (1 << 20) - (64 << 10), 0)]));

        NbdBackend chain = NbdBackend.Compose(new NbdPlugin { Uri = server.Uri, Options = options });
        await chain.StartAsync();
        await using (NextContext disk = await chain.OpenAsync())
        {
            Assert.That(disk.Info.MetaContexts, Is.EquivalentTo(options.MetaContexts));
            await CheckAsync(extents => disk.ExtentsAsync(0, Size, RequestFlags.None, extents, CancellationToken.None));
        }
        await chain.DisposeAsync();

        static async Task CheckAsync(Func<ExtentList, ValueTask> ask)
        {
            var depth = new ExtentList(0, Size, Depth);
            await ask(depth);
            var dirty = new ExtentList(0, Size, Dirty);
            await ask(dirty);
            Assert.That(depth.Where(e => e.Status != 0).Sum(e => e.Length), Is.EqualTo(128 << 10));
            Assert.That(dirty.Where(e => e.Status != 0), Is.EqualTo((Extent[])[new(1 << 20, 64 << 10, (ExtentStatus)1)]));
        }
    }

    [Test]
    public async Task Exports_of_the_other_server_are_listed_and_opened_by_name()
    {
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());
        await using InteropServer proxy = await InteropServer.StartAsync(new NbdPlugin { Uri = server.Uri, DynamicExport = true });

        foreach ((string name, long size) in ExportsPlugin.Sizes)
        {
            await using NbdClient client = await NbdClient.ConnectAsync(proxy.UriOf(name));
            Assert.That(client.Info.Size, Is.EqualTo(size), name);
        }
        await using NbdHandshake handshake = await NbdHandshake.ConnectAsync(proxy.Uri);
        Assert.That((await handshake.ListAsync()).Select(e => e.Name), Is.SupersetOf(ExportsPlugin.Sizes.Keys.Where(n => n.Length > 0)));
    }

    [Test]
    public async Task A_connected_client_is_a_disk_and_a_stream()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = Size });
        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri);
        NbdBackend chain = NbdBackend.Compose(new NbdPlugin { Client = client }, new NbdKit.Filters.OffsetFilter { Offset = 4096 });
        await chain.StartAsync();
        await using (var stream = new NbdStream(await chain.OpenAsync()))
        {
            byte[] content = TestData.Random(100_000, 8);
            await stream.WriteAsync(content);
            // A synchronous call behind an asynchronous one: what continues must not hold up the replies.
            stream.Position = 0;
            byte[] back = new byte[content.Length];
            stream.ReadExactly(back);
            Assert.That(back, Is.EqualTo(content));
            byte[] raw = new byte[content.Length];
            await client.ReadAsync(raw, 4096);
            Assert.That(raw, Is.EqualTo(content));
        }
        await chain.DisposeAsync();
        Assert.That(client.IsConnected);
    }

    private static async Task RequestAsync(NbdClientPool pool, int what, byte[] model, int from, int length, int seed)
    {
        switch (what)
        {
            case 0:
                byte[] buffer = new byte[length];
                await pool.ReadAsync(buffer, from);
                Assert.That(buffer.AsSpan().SequenceEqual(model.AsSpan(from, length)), $"{length} bytes at {from}");
                break;
            case 1 when pool.Info.CanZero != Support.None:
                await pool.ZeroAsync(from, length, seed % 2 == 0 ? RequestFlags.MayTrim : RequestFlags.None);
                model.AsSpan(from, length).Clear();
                break;
            case 2 when pool.Info.CanTrim:
                await pool.TrimAsync(from, length);
                // What was trimmed holds anything: write it anew.
                await WriteAsync();
                break;
            default:
                await WriteAsync();
                break;
        }

        async Task WriteAsync()
        {
            byte[] data = TestData.Random(length, seed);
            bool fua = seed % 5 == 0 && pool.Info.CanFua != Support.None;
            await pool.WriteAsync(data, from, fua ? RequestFlags.Fua : RequestFlags.None);
            data.CopyTo(model, from);
        }
    }

    private static async Task<(string Uri, IAsyncDisposable Server)> StartAsync(string kind, ScratchDirectory folder)
    {
        if (kind == "ours")
        {
            InteropServer own = await InteropServer.StartAsync(new MemoryPlugin { Size = Size });
            return (own.Uri, own);
        }
        string file = folder.WriteHole("disk", Size);
        if (kind == "qemu-nbd qcow2")
        {
            await Peer.OutputAsync("qemu-img", "create", "-f", "qcow2", file, Size.ToString(CultureInfo.InvariantCulture));
        }
        BackgroundServer server = kind switch
        {
            "nbdkit memory" => await BackgroundServer.NbdkitAsync(folder, "memory", $"{Size}"),
            "nbdkit file" => await BackgroundServer.NbdkitAsync(folder, "file", file),
            "qemu-nbd raw" => await BackgroundServer.QemuNbdAsync(folder, "-f", "raw", file),
            "qemu-nbd qcow2" => await BackgroundServer.QemuNbdAsync(folder, "-f", "qcow2", "--discard=unmap", file),
            _ => await BackgroundServer.NbdServerAsync(folder, file),
        };
        return (server.Uri, server);
    }

    /// <summary>The map that nbdinfo prints: offset, length, status; neighbours that are alike as one.</summary>
    private static List<string> Merged(string map)
    {
        List<(long Offset, long Length, string Status)> merged = [];
        foreach (string line in map.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            long offset = long.Parse(fields[0], CultureInfo.InvariantCulture);
            long length = long.Parse(fields[1], CultureInfo.InvariantCulture);
            if (merged.Count > 0 && merged[^1].Status == fields[2])
            {
                merged[^1] = merged[^1] with { Length = merged[^1].Length + length };
            }
            else
            {
                merged.Add((offset, length, fields[2]));
            }
        }
        return [.. merged.Select(e => $"{e.Offset} {e.Length} {e.Status}")];
    }
}
