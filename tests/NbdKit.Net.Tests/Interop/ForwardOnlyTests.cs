using System.Text;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>A source of nbdkit that can only be read in order, under clients that read as they like.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ForwardOnlyTests
{
    // Fails every read that does not begin where the one before has ended.
    private const string Tape =
        """
        case "$1" in
            get_size) stat -c %s DISK ;;
            thread_model) echo serialize_all_requests ;;
            pread)
                at=$(cat PLACE)
                if [ "$4" != "$at" ]; then echo "EINVAL the tape is at $at, not at $4" >&2; exit 1; fi
                echo $(( $4 + $3 )) > PLACE
                tail -c +$(( $4 + 1 )) DISK | head -c "$3" ;;
            *) exit 2 ;;
        esac
        """;

    [Test]
    public async Task Clients_read_a_tape_of_nbdkit_in_any_order()
    {
        Peer.Require("nbdkit", "qemu-img", "qemu-io", "nbdcopy");
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(3_000_832, 21);
        content.AsSpan(1_000_000, 1_000_000).Clear();
        string disk = folder.Write("disk", content);
        string place = folder.Write("place", "0"u8.ToArray());
        string script = folder.Write("script", Encoding.UTF8.GetBytes("#!/bin/sh\n" + Tape.Replace("DISK", disk).Replace("PLACE", place)));
        await Peer.OutputAsync("chmod", "+x", script);
        await using PeerServer tape = await PeerServer.NbdkitAsync(SocketKind.Unix, "sh", script);
        var plugin = new NbdPlugin { Uri = $"nbd+unix:///?socket={tape.Socket}" };
        await using InteropServer server = await InteropServer.StartAsync(plugin, new ForwardOnlyFilter());
        // The end first, as whoever looks for a partition table does.
        await Peer.OutputAsync("qemu-io", "-r", "-f", "raw", "-c", "read 1048576 65536", "-c", "read 4096 512", server.Uri);
        await Peer.OutputAsync("nbdcopy", "--connections=4", "--requests=8", server.Uri, folder["copy"]);
        await SameFile.CheckAsync(folder["copy"], disk);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, server.Uri);
    }
}
