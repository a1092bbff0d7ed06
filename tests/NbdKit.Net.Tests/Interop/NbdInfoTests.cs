using System.Text.Json.Nodes;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>libnbd's nbdinfo.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdInfoTests
{
    [TestCase(SocketKind.Unix)]
    [TestCase(SocketKind.Tcp)]
    public async Task An_export_is_described(SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1_000_123 }), socket);

        JsonNode info = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", "--json", server.Uri))!;

        Assert.That((string?)info["protocol"], Is.EqualTo("newstyle-fixed"));
        Assert.That((bool?)info["structured"], Is.True);
        JsonNode export = info["exports"]![0]!;
        Assert.That((long?)export["export-size"], Is.EqualTo(1_000_123), info.ToJsonString());
        Assert.That(export["contexts"]!.AsArray().Select(c => (string?)c), Is.EqualTo(["base:allocation"]));
        var flags = export.AsObject()
            .Where(p => p.Key.StartsWith("can_", StringComparison.Ordinal) || p.Key.StartsWith("is_", StringComparison.Ordinal))
            .ToDictionary(p => p.Key, p => (bool?)p.Value);
        string[] clear = ["is_read_only", "is_rotational"];
        Assert.That(flags, Has.Count.EqualTo(10), info.ToJsonString());
        Assert.That(flags.Where(f => f.Value == clear.Contains(f.Key)), Is.Empty, info.ToJsonString());
    }

    [Test]
    public async Task A_read_only_server_offers_nothing_that_writes()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }), options: new NbdServerOptions { ReadOnly = true });

        JsonNode export = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", "--json", server.Uri))!["exports"]![0]!;

        Assert.That((bool?)export["is_read_only"], Is.True);
        Assert.That((bool?)export["can_trim"], Is.False);
        Assert.That((bool?)export["can_zero"], Is.False);
        Assert.That((bool?)export["can_multi_conn"], Is.True);
    }

    [TestCase(0)]
    [TestCase(1)]
    [TestCase(511)]
    [TestCase(long.MaxValue)]
    public async Task Any_size_is_told(long size)
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = size });

        Assert.That(await Peer.OutputAsync("nbdinfo", "--size", server.Uri), Is.EqualTo($"{size}\n"));
    }

    [Test]
    public async Task The_map_tells_data_from_holes()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = (1 << 20) + 7 });
        await LibNbd.RunAsync(server.Uri, """
            h = connect()
            h.pwrite(b'x' * 65536, 131072)
            h.pwrite(b'x', 1048576 + 6)
            h.shutdown()
            """);

        JsonArray map = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", "--map", "--json", server.Uri))!.AsArray();

        // The pages of the memory plugin are 32 KiB.
        Assert.That(
            map.Select(e => ((long?)e!["offset"], (long?)e["length"], (long?)e["type"])),
            Is.EqualTo(new (long?, long?, long?)[]
            {
                (0, 131_072, 3), (131_072, 65_536, 0), (196_608, 851_968, 3), (1_048_576, 7, 0),
            }),
            map.ToJsonString());
    }

    [Test]
    public async Task The_map_of_a_large_disk_is_pieced_together()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1L << 40 });

        // One reply tells 4 GiB at most.
        string totals = await Peer.OutputAsync("nbdinfo", "--map", "--totals", "--json", server.Uri);

        Assert.That((long?)JsonNode.Parse(totals)![0]!["size"], Is.EqualTo(1L << 40), totals);
    }

    [Test]
    public async Task Exports_are_listed()
    {
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());

        JsonNode list = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", "--list", "--json", server.Uri))!;
        JsonArray exports = list["exports"]!.AsArray();

        Assert.That(exports.Select(e => (string?)e!["export-name"]), Is.EqualTo(ExportsPlugin.Sizes.Keys));
        Assert.That(exports.Select(e => (long?)e!["export-size"]), Is.EqualTo(ExportsPlugin.Sizes.Values));
        Assert.That(
            exports.Select(e => (string?)e!["description"]), Is.EqualTo(ExportsPlugin.Names.Select(name => $"the disk {name}")));
    }

    [Test]
    public async Task An_export_is_chosen_by_its_name(
        [ValueSource(typeof(ExportsPlugin), nameof(ExportsPlugin.Names))] string name)
    {
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());

        Assert.That(
            await Peer.OutputAsync("nbdinfo", "--size", server.UriOf(name)), Is.EqualTo($"{ExportsPlugin.Sizes[name]}\n"));
    }

    [Test]
    public async Task An_export_that_does_not_exist_is_said_not_to()
    {
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());

        PeerResult result = await Peer.RunAsync("nbdinfo", server.UriOf("nowhere"));

        Assert.That(result.Status, Is.Not.Zero, result.ToString());
        Assert.That(result.Errors, Does.Contain("No such file or directory"), result.ToString());
    }

    [Test]
    public async Task The_oldstyle_handshake_is_understood()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }), options: new NbdServerOptions { Oldstyle = true });

        JsonNode info = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", "--json", server.Uri))!;

        Assert.That((string?)info["protocol"], Is.EqualTo("oldstyle"));
        Assert.That((long?)info["exports"]![0]!["export-size"], Is.EqualTo(1 << 20));
    }

    [TestCase(false, true)]
    [TestCase(true, false)]
    public async Task An_old_server_can_be_imitated(bool structured, bool fixedNewstyle)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }),
            options: new NbdServerOptions { OfferStructuredReplies = structured, OfferFixedNewstyle = fixedNewstyle });

        JsonNode info = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", "--json", server.Uri))!;

        Assert.That((string?)info["protocol"], Is.EqualTo(fixedNewstyle ? "newstyle-fixed" : "newstyle"));
        Assert.That((bool?)info["structured"], Is.False);
        Assert.That((long?)info["exports"]![0]!["export-size"], Is.EqualTo(1 << 20));
    }
}
