using System.Runtime.InteropServices;
using NbdKit.Faults.Hostile;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Gigabytes are written, read and compared, over every kind of connection and by several programs.</summary>
internal sealed class IntegrityLoad : Fault
{
    private const int Depth = 64;
    private const long Part = 256 << 20;
    private const int Programs = 512;

    public override string Id => "F18";

    public override string Title => "integrity under load";

    public override async Task<string> RunAsync(FaultRun run)
    {
        long bytes = run.Size(8, 1024) << 30;
        var options = new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false } };
        await using FaultServer server = await FaultServer.StartAsync(new MemoryPlugin { Size = Part }, options);
        string programs = await ProgramsAsync(server, run);
        long verified = 0;
        int round = 0;
        while (verified < bytes)
        {
            await using NbdClient client = await ((round % 4) switch
            {
                0 => NbdClient.ConnectAsync(server.Unix),
                1 => NbdClient.ConnectAsync(server.Tcp),
                2 => NbdClient.ConnectAsync(
                    server.Tcp, new NbdClientOptions { Tls = NbdTlsPolicy.Require, TlsAuthentication = TestCertificates.Client() }),
                _ => InMemoryAsync(server),
            });
            verified += await PassAsync(client, run.Random(round));
            round++;
        }
        server.Log.AssertClean();
        return $"{verified >> 20} MiB over Unix, TCP, TLS and in memory, {programs}: all as written";
    }

    private static Task<NbdClient> InMemoryAsync(FaultServer server)
    {
        var pipes = new PipePair();
        _ = server.Server.ServeAsync(pipes.Server);
        return NbdClient.ConnectAsync(pipes.Client);
    }

    /// <summary>Fills the disk in pieces of all sizes, 64 at a time, and reads it in others.</summary>
    private static async Task<long> PassAsync(NbdClient client, Random random)
    {
        long seed = random.NextInt64();
        long memory = 0;
        await RunAsync(Pieces(random), async (offset, length) =>
        {
            await WaitAsync(length);
            byte[] data = new byte[length];
            Fill(data, offset, seed);
            await client.WriteAsync(data, offset);
            Interlocked.Add(ref memory, -length);
        });
        await RunAsync(Pieces(random), async (offset, length) =>
        {
            await WaitAsync(length);
            byte[] data = new byte[length];
            await client.ReadAsync(data, offset);
            byte[] expected = new byte[length];
            Fill(expected, offset, seed);
            if (!data.AsSpan().SequenceEqual(expected))
            {
                throw new InvalidOperationException($"{length} bytes at {offset} are not what was written.");
            }
            Interlocked.Add(ref memory, -length);
        });
        return Part;

        // 64 pieces of 32 MiB would be more than the memory that this program is for.
        async Task WaitAsync(int length)
        {
            while (Interlocked.Add(ref memory, length) > 256 << 20 && Volatile.Read(ref memory) > length)
            {
                Interlocked.Add(ref memory, -length);
                await Task.Delay(1);
            }
        }
    }

    private static Task RunAsync(IEnumerable<(long Offset, int Length)> pieces, Func<long, int, Task> work)
        => Parallel.ForEachAsync(
            pieces, new ParallelOptions { MaxDegreeOfParallelism = Depth }, async (piece, _) => await work(piece.Offset, piece.Length));

    private static IEnumerable<(long Offset, int Length)> Pieces(Random random)
    {
        for (long offset = 0; offset < Part;)
        {
            // Mostly some KiB, at times 32 MiB, at times 512 bytes.
            int length = random.Next(40) == 0 ? 32 << 20 : 512 * (1 + random.Next(1 << random.Next(13)));
            length = (int)Math.Min(length, Part - offset);
            yield return (offset, length);
            offset += length;
        }
    }

    /// <summary>Bytes that follow from their place, so that nothing in a wrong one looks right.</summary>
    private static void Fill(Span<byte> data, long offset, long seed)
    {
        Span<long> words = MemoryMarshal.Cast<byte, long>(data);
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = ((offset / sizeof(long)) + i) * seed;
        }
    }

    /// <summary>What others wrote verifies in its own way.</summary>
    private static async Task<string> ProgramsAsync(FaultServer server, FaultRun run)
    {
        using var folder = new ScratchDirectory();
        string uri = server.Server.Uris[0].ToString();
        var said = new List<string>();
        if (Has("nbdcopy"))
        {
            string source = folder.Write("source", TestData.Random((int)Part / 4, run.Seed));
            using (FileStream longer = File.OpenWrite(source))
            {
                longer.SetLength(Part);
            }
            await Peer.OutputAsync("nbdcopy", source, uri);
            await Peer.OutputAsync("nbdcopy", uri, folder["copy"]);
            await Peer.OutputAsync("cmp", source, folder["copy"]);
            said.Add("nbdcopy there and back");
            if (Has("qemu-img"))
            {
                await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri);
                said.Add("qemu-img compare");
            }
        }
        if (Has("fio"))
        {
            PeerResult engine = await Peer.RunAsync("fio", "--enghelp=nbd");
            if (engine.Status == 0)
            {
                await Peer.OutputAsync(
                    "fio", "--name=integrity", "--ioengine=nbd", $"--uri={uri}", "--rw=randrw", "--bsrange=512-256k", "--iodepth=64",
                    $"--size={Programs / 2}m", "--verify=crc32c", "--do_verify=1", "--verify_state_save=0", $"--randseed={run.Seed & 0xffff}", $"--aux-path={folder.Path}");
                said.Add("fio with crc32c");
            }
        }
        return said.Count == 0 ? "no other program is installed" : string.Join(", ", said);
    }

    private static bool Has(string program)
        => new[] { "/usr/bin", "/usr/local/bin", "/bin" }.Any(folder => File.Exists(Path.Combine(folder, program)));
}
