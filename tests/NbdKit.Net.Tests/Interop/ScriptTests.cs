using System.Text.RegularExpressions;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The same scripts behind nbdkit and behind this library: clients see no difference.</summary>
[Platform("Linux")]
[Parallelizable(ParallelScope.All)]
public sealed partial class ScriptTests
{
    private const string Basic = "get_size) echo 1M ;; pread) head -c $3 /dev/zero ;; *) exit 2 ;;";

    private const string Full = """
        thread_model) echo parallel ;;
        get_ready) truncate -s 1M $tmpdir/disk ;;
        open) echo "handle-$2-$3" ;;
        get_size) echo 1M ;;
        export_description) echo "this is $2" ;;
        block_size) echo 512 4K 1M ;;
        can_write|can_flush|can_trim|can_zero|can_extents|can_multi_conn|is_rotational) exit 0 ;;
        can_fua|can_cache) echo native ;;
        list_exports) printf 'INTERLEAVED\na\nfirst\nb\nsecond\n' ;;
        pread) dd if=$tmpdir/disk skip=$4 count=$3 iflag=count_bytes,skip_bytes status=none ;;
        pwrite) dd of=$tmpdir/disk seek=$4 conv=notrunc oflag=seek_bytes status=none ;;
        flush|cache) ;;
        trim|zero) fallocate -p -o $4 -l $3 -n $tmpdir/disk ;;
        extents) echo 0 64K; echo 64K 64K hole; printf '128K 384K 3 x\n512K\t256K\tzero,hole\n'; echo 768K 256K 2 ;;
        *) exit 2 ;;
        """;

    private static readonly string[] Scripts =
    [
        Basic,
        Full,
        "can_write) exit 0 ;; pwrite) cat >/dev/null ;; " + Basic,
        "can_write|can_flush) exit 0 ;; can_zero) exit 3 ;; can_trim) exit 3 ;; " + Basic,
        "can_write) exit 3 ;; can_flush|can_extents|can_trim|can_zero) exit 0 ;; extents) echo 0 1M hole ;; " + Basic,
        "can_write|can_zero|can_fast_zero) exit 0 ;; can_fua) echo EMULATE ;; can_cache) echo None ;; default_export) echo x ;; " + Basic,
        "list_exports) printf 'NAMES+DESCRIPTIONS\\na\\nb\\none\\ntwo\\n' ;; can_cache) echo emulate ;; " + Basic,
        "list_exports) printf 'a\\nb\\n' ;; default_export) printf 'NAMES\\nq\\nr\\n' ;; open) printf 'x\\n\\n' ;; " + Basic,
        "export_description) exit 1 ;; block_size) exit 2 ;; is_rotational) exit 3 ;; " + Basic,
        "get_size) exit 1 ;; " + Basic,
        "get_size) echo nothing ;; " + Basic,
        "can_write) exit 1 ;; " + Basic,
        "open) echo ENOMEM >&2; exit 1 ;; " + Basic,
    ];

    [GeneratedRegex("socket=[^\" ]*")]
    private static partial Regex SocketPath();

    [Test]
    public async Task Nbdinfo_sees_what_it_sees_of_nbdkit([Range(0, 12)] int number)
    {
        Peer.Require("nbdkit", "nbdinfo");
        using var folder = new ScratchDirectory();
        string path = folder.WriteProgram("script", $"#!/bin/sh\ncase $1 in\n{Scripts[number]}\nesac\n");
        await using BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(folder, "sh", path);
        await using InteropServer own = await InteropServer.StartAsync(NbdBackend.Compose(new ShPlugin { Path = path }), lenient: true);
        foreach (string[] arguments in new string[][] { ["--json"], ["--json", "--list"], ["--map"], ["--json", "named"] })
        {
            string[] before = [.. arguments.Where(a => a.StartsWith('-'))];
            string export = arguments[^1] == "named" ? Uri.EscapeDataString("größer") : "";
            PeerResult expected = await Peer.RunAsync("nbdinfo", [.. before, $"nbd+unix:///{export}?socket={nbdkit.SocketPath}"]);
            PeerResult actual = await Peer.RunAsync("nbdinfo", [.. before, $"nbd+unix:///{export}?socket={own.SocketPath}"]);
            Assert.That(
                (actual.Status, SocketPath().Replace(actual.Output, "")),
                Is.EqualTo((expected.Status, SocketPath().Replace(expected.Output, ""))),
                $"{Scripts[number]}: nbdinfo {string.Join(' ', arguments)}\n{actual.Errors}\n{expected.Errors}");
        }
    }

    [Test]
    public async Task Errors_reach_clients_as_those_of_nbdkit(
        [Values("EPERM", "EIO", "ENOMEM x", "EINVAL", "ENOSPC full", "EROFS", "EDQUOT", "EFBIG", "ESHUTDOWN", "EINVALID", "", "enospc")] string says)
    {
        Peer.Require("nbdkit", "qemu-io");
        using var folder = new ScratchDirectory();
        string[] parameters =
        [
            "get_size=echo 1M", $"pread=echo {says} >&2; exit 1", $"pwrite=cat >/dev/null; echo {says} >&2; exit 1",
        ];
        await using BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(folder, ["eval", .. parameters]);
        NbdBackend chain = new NbdCatalogue().Compose(
            "eval", [], parameters.Select(p => new KeyValuePair<string, string>(p.Split('=', 2)[0], p.Split('=', 2)[1])));
        await using InteropServer own = await InteropServer.StartAsync(chain, lenient: true);
        foreach (string command in new[] { "read 0 512", "write 0 512" })
        {
            string expected = (await Peer.RunAsync("qemu-io", "-f", "raw", "-c", command, nbdkit.Uri)).Output;
            string actual = (await Peer.RunAsync("qemu-io", "-f", "raw", "-c", command, own.Uri)).Output;
            Assert.That(actual, Is.EqualTo(expected), command);
        }
    }

    [Test]
    public async Task Programs_copy_in_and_out_of_a_script()
    {
        Peer.Require("nbdcopy", "qemu-img");
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random(1 << 20, 5));
        await using InteropServer own = await InteropServer.StartAsync(
            NbdBackend.Compose(new ShPlugin { Text = $"case $1 in\n{Full}\nesac\n" }));
        await Peer.OutputAsync("nbdcopy", "--flush", source, own.UriOf("a"));
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", own.UriOf("a"), folder["copy"]);
        byte[] expected = TestData.Random(1 << 20, 5);
        expected.AsSpan(128 << 10, 384 << 10).Clear();
        expected.AsSpan(512 << 10, 512 << 10).Clear();
        byte[] copy = await File.ReadAllBytesAsync(folder["copy"]);
        Assert.That(copy.AsSpan().SequenceEqual(expected), "what the script says is zero is taken to be");
    }
}
