using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>QEMU's qemu-io: single requests, which it checks itself.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class QemuIoTests
{
    private static readonly string[][] Formats = [["-f", "raw"], []];

    [Test]
    public async Task Requests_of_every_kind_do_what_they_say(
        [Values] SocketKind socket, [ValueSource(nameof(Formats))] string[] format)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = (4 << 20) + 99 }), socket);

        await RunAsync(
            server,
            format,
            "write -P 0x11 1M 2M",
            "read -P 0x11 1M 2M",
            "read -P 0 0 1M",
            "write -z 1M 64k",
            "read -P 0 1M 64k",
            "write -z -u 1088k 64k",
            "read -P 0 1088k 64k",
            "read -P 0x11 1152k 512",
            "discard 2M 512k",
            "read 2M 512k",
            "write -f -P 0x22 1234567 89",
            "read -P 0x22 1234567 89",
            "read -P 0x11 1234566 1",
            "read -P 0x11 1234656 1",
            "flush",
            "read -P 0 4194304 99");
    }

    [Test]
    public async Task The_end_of_an_odd_disk_is_written_only_by_who_knows_that_it_is_raw()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = (4 << 20) + 99 });

        await RunAsync(
            server, ["-f", "raw"],
            "write -P 0x33 4194304 99", "read -P 0x33 4194304 99", "read -P 0x33 4194402 1", "write -z 4194305 97",
            "read -P 0 4194305 97", "read -P 0x33 4194402 1");

        // QEMU writes whole sectors to a disk that it only takes for raw.
        PeerResult result = await Peer.RunAsync("qemu-io", "-c", "write -P 0x44 4194304 99", server.Uri);
        Assert.That(result.ToString(), Does.Contain("No space left on device"));
        await RunAsync(server, ["-f", "raw"], "read -P 0x33 4194304 1", "read -P 0 4194305 97");
    }

    [Test]
    public async Task Many_requests_run_at_once([Values] SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 8 << 20 }), socket);
        int[] slots = [.. Enumerable.Range(0, 100)];

        await RunAsync(
            server,
            ["-f", "raw"],
            [
                .. slots.Select(i => $"aio_write -P {i + 1} {i * 70_000} 65536"),
                "aio_flush",
                .. slots.Select(i => $"aio_read -P {i + 1} {i * 70_000} 65536"),
                "aio_flush",
            ]);
    }

    [TestCase(1)]
    [TestCase(511)]
    [TestCase(513)]
    [TestCase(1_000_123)]
    public async Task The_last_byte_can_be_written_and_the_next_cannot(int size)
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = size });

        await RunAsync(server, ["-f", "raw"], $"write -P 7 {size - 1} 1", $"read -P 7 {size - 1} 1", $"write -P 8 0 {size}");

        // QEMU believes in whole sectors.
        PeerResult result = await Peer.RunAsync("qemu-io", "-f", "raw", "-c", $"write -P 9 {size} 1", server.Uri);
        Assert.That(result.ToString(), Does.Contain("No space left on device"));
        await RunAsync(server, ["-f", "raw"], $"read -P 8 0 {size}", $"read -P 0 {size} {511 - ((size - 1) % 512)}");
    }

    [Test]
    public async Task A_large_disk_is_zeroed_and_discarded_at_once()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1L << 50 });

        await RunAsync(
            server, ["-f", "raw"],
            "write -P 1 512T 1M", "write -z -u 0 1G", $"discard {(1L << 50) - (1L << 30)} 1G",
            "read -P 1 512T 1M", "read -P 0 1T 1M");
    }

    [Test]
    public async Task A_read_only_export_is_opened_read_only()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }), options: new NbdServerOptions { ReadOnly = true });

        await RunAsync(server, ["-r", "-f", "raw"], "read -P 0 0 1M");
        PeerResult result = await Peer.RunAsync("qemu-io", "-f", "raw", "-c", "write 0 512", server.Uri);

        Assert.That(result.Expect(1).Errors, Does.Contain("Permission denied"));
    }

    /// <summary>Runs commands that must all succeed, patterns included.</summary>
    private static async Task RunAsync(InteropServer server, string[] options, params string[] commands)
    {
        PeerResult result = await Peer.RunAsync(
            "qemu-io", [.. options, .. commands.SelectMany(command => new[] { "-c", command }), server.Uri]);
        result.Expect(0);
        Assert.That(result.Output, Does.Not.Contain("failed").IgnoreCase, result.ToString());
        Assert.That(result.Output, Does.Not.Contain("error").IgnoreCase, result.ToString());
    }
}
