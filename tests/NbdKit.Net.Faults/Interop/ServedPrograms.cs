using NbdKit.Faults.FileSystems;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Interop;

/// <summary>The programs that connect to our server: each opens the disk, reads, writes if it can, and what it did is compared.</summary>
internal static class ServedPrograms
{
    // Without them only the system's own directory is left, which is not a test's to write.
    private const string NoCertificates = "it does not let its URI name certificates (libnbd's set_uri_allow_local_file)";

    /// <summary>The programs by name, with the session of each and the reason why it cannot do one, if there is any.</summary>
    public static IReadOnlyList<(string Name, Func<ServedSession, Task> Run, Func<SocketKind, bool, string?> Reason)> All { get; } =
    [
        ("nbdinfo", InfoAsync, Always),
        ("nbdcopy", CopyAsync, Always),
        ("nbdsh", ShellAsync, Always),
        ("nbdfuse", FuseAsync, (_, isTls) => isTls ? NoCertificates : CanMount ? null : "this machine has no FUSE, or not for this user"),
        ("qemu-img", ConvertAsync, Always),
        ("qemu-io", QemuIoAsync, Always),
        ("qemu-nbd", QemuListAsync, Always),
        ("nbd-client", ClientListAsync, Always),
        ("fio", FioAsync, (_, isTls) => isTls ? NoCertificates : null),
        ("nbdkit", ProxyAsync, Always),
    ];

    private static bool CanMount => File.Exists("/dev/fuse") && System.Environment.IsPrivilegedProcess;

    private static string? Always(SocketKind socket, bool isTls) => null;

    private static async Task InfoAsync(ServedSession session)
        => Expect.Contains(await Peer.OutputAsync("nbdinfo", "--size", session.Uri), $"{ServedSession.Size}");

    private static async Task CopyAsync(ServedSession session)
    {
        await Peer.OutputAsync("nbdcopy", session.Uri, session.Folder["copy"]);
        Same(session, "copy");
        byte[] other = TestData.Random(ServedSession.Size, 77);
        await Peer.OutputAsync("nbdcopy", "--flush", session.Folder.Write("other", other), session.Uri);
        await session.CheckDiskAsync(other, 0);
    }

    private static async Task ShellAsync(ServedSession session)
    {
        // What nbdsh is, with the interpreter that the distribution's bindings belong to.
        await Peer.OutputAsync(
            "/usr/bin/python3", "-m", "nbd", "-c", "h.set_uri_allow_local_file(True)", "-c", $"h.connect_uri('{session.Uri}')",
            "-c", $"assert h.pread({ServedSession.Size}, 0) == open('{session.Source}', 'rb').read()",
            "-c", "h.pwrite(b'Z' * 70001, 12345); h.flush(); assert h.pread(70001, 12345) == b'Z' * 70001; h.shutdown()");
        await session.CheckDiskAsync(Filled('Z', 70_001), 12_345);
    }

    private static async Task FuseAsync(ServedSession session)
    {
        await using (FuseDisk disk = await FuseDisk.OpenAsync(session.Uri))
        {
            await Peer.OutputAsync("cmp", session.Source, disk.Disk);
            string piece = session.Folder.Write("piece", Filled('F', 8192));
            await Peer.OutputAsync("dd", $"if={piece}", $"of={disk.Disk}", "bs=4096", "seek=5", "conv=notrunc,fsync", "status=none");
        }
        await session.CheckDiskAsync(Filled('F', 8192), 5 * 4096);
    }

    private static async Task ConvertAsync(ServedSession session)
    {
        await Peer.OutputAsync("qemu-img", ["convert", .. session.QemuImage, "-O", "raw", session.Folder["copy"]]);
        Same(session, "copy");
    }

    private static async Task QemuIoAsync(ServedSession session)
    {
        await Peer.OutputAsync(
            "qemu-io", [.. session.QemuImage, "-c", "write -P 0x5a 64k 1M", "-c", "read -P 0x5a 64k 1M", "-c", "flush"]);
        await session.CheckDiskAsync(Filled('Z', 1 << 20), 64 << 10);
        await session.CheckDiskAsync(session.Content.AsMemory(0, 64 << 10), 0);
    }

    private static async Task QemuListAsync(ServedSession session)
    {
        string[] where = session.Socket == SocketKind.Unix ? ["-k", session.SocketPath] : ["-b", "127.0.0.1", "-p", $"{session.Port}"];
        string[] tls = session.IsTls
            ? ["--object", $"tls-creds-x509,id=tls0,endpoint=client,dir={session.Pki}", "--tls-creds=tls0", "--tls-hostname=localhost"] : [];
        Expect.Contains(await Peer.OutputAsync("qemu-nbd", ["-L", .. where, .. tls]), $"{ServedSession.Size}");
    }

    private static async Task ClientListAsync(ServedSession session)
    {
        string[] where = session.Socket == SocketKind.Unix ? ["-unix", session.SocketPath] : ["127.0.0.1", $"{session.Port}"];
        string[] tls = session.IsTls
            ?
            [
                "-cacertfile", $"{session.Pki}/ca-cert.pem", "-certfile", $"{session.Pki}/client-cert.pem", "-keyfile",
                $"{session.Pki}/client-key.pem", "-tlshostname", "localhost",
            ]
            : [];
        PeerResult list = await Peer.RunAsync("nbd-client", ["-l", .. where, .. tls]);
        // What it says between these is the list; inside TLS it ends with a complaint about how the session was closed.
        Expect.Contains(list.ToString(), "Negotiation: ..");
        Expect.That(!list.ToString().Contains("rror", StringComparison.Ordinal), list.ToString());
    }

    private static async Task FioAsync(ServedSession session)
        => Expect.Contains(
            await Peer.OutputAsync(
                "fio", "--name=verify", $"--aux-path={session.Folder.Path}", "--ioengine=nbd", $"--uri={session.Uri}", "--rw=randrw",
                "--iodepth=32", $"--size={ServedSession.Size}", "--bs=4k", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"),
            "err= 0");

    private static async Task ProxyAsync(ServedSession session)
    {
        string[] where = session.Socket == SocketKind.Unix ? [$"socket={session.SocketPath}"] : ["hostname=127.0.0.1", $"port={session.Port}"];
        string[] tls = session.IsTls ? ["tls=require", $"tls-certificates={session.Pki}"] : [];
        await Peer.OutputAsync("nbdkit",
        [
            "--exit-with-parent", "-U", "-", "nbd", .. where, .. tls, "--run",
            $"nbdcopy \"$uri\" {session.Folder["copy"]} && qemu-io -f raw -c 'write -P 75 4096 5120' -c flush \"$uri\"",
        ]);
        Same(session, "copy");
        await session.CheckDiskAsync(Filled('K', 5120), 4096);
    }

    private static byte[] Filled(char value, int count) => [.. Enumerable.Repeat((byte)value, count)];

    private static void Same(ServedSession session, string file)
        => Expect.Same(File.ReadAllBytes(session.Folder[file]), session.Content, $"what was read into {file}");
}
