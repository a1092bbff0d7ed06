using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>nbdfuse: a disk as a file.</summary>
public sealed class NbdFuseTests
{
    [Test]
    public async Task A_disk_is_written_and_read_as_a_file([Values] SocketKind socket)
    {
        Peer.Require("nbdfuse", "cmp");
        if (!File.Exists("/dev/fuse"))
        {
            Assert.Ignore("This machine has no FUSE.");
        }
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 16 << 20 }), socket);
        using var folder = new ScratchDirectory();
        byte[] data = TestExport.Pattern(3_000_001);
        string source = folder.Write("source", data);
        Directory.CreateDirectory(folder["disk"]);

        (await Peer.RunAsync("sh", "-ec", $$"""
            nbdfuse -P '{{folder["pid"]}}' '{{folder["disk"]}}' '{{server.Uri}}' &
            i=0
            while [ ! -s '{{folder["pid"]}}' ] && [ $i -lt 200 ]; do sleep 0.05; i=$((i + 1)); done
            trap "umount '{{folder["disk"]}}' || fusermount3 -u '{{folder["disk"]}}' || fusermount -u '{{folder["disk"]}}'" EXIT
            dd 'if={{source}}' 'of={{folder["disk"]}}/nbd' bs=77777 conv=notrunc,fsync status=none
            cmp -n {{data.Length}} '{{source}}' '{{folder["disk"]}}/nbd'
            """)).Expect(0);

        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri);
        byte[] read = new byte[data.Length];
        await client.ReadAsync(read, 0);
        Assert.That(read.AsSpan().SequenceEqual(data));
    }
}
