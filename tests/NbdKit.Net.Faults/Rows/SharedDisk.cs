using NbdKit.Faults.Hostile;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>8 connections write and read the same 64 blocks of each disk that says it may be used so.</summary>
internal sealed class SharedDisk : Fault
{
    private const int Connections = 8;
    private const int WorkersEach = 4;
    private const int Blocks = 64;
    private const int MostBlocks = 8;
    private const long Size = 1 << 20;

    public override string Id => "F17";

    public override string Title => "one disk for several connections";

    public override async Task<string> RunAsync(FaultRun run)
    {
        long operations = run.Size(1_000_000, 100_000_000);
        using var folder = new ScratchDirectory();
        (string Name, NbdBackend Chain)[] chains =
        [
            ("memory", NbdBackend.Compose(new MemoryPlugin { Size = Size })),
            ("file", NbdBackend.Compose(new FilePlugin { Path = folder.WriteHole("disk", Size) })),
            ("cow of memory", NbdBackend.Compose(new MemoryPlugin { Size = Size }, [new CowFilter()])),
            ("cache of a file", NbdBackend.Compose(new FilePlugin { Path = folder.WriteHole("cached", Size) }, [new CacheFilter()])),
            ("blocksize of memory", NbdBackend.Compose(new MemoryPlugin { Size = Size }, [new BlockSizeFilter { MinBlock = 4096 }])),
        ];
        var said = new List<string>();
        foreach ((string name, NbdBackend chain) in chains)
        {
            long each = operations / chains.Length;
            bool shared = true;
            for (long done = 0; done < each && shared; done += 1_000_000)
            {
                shared = await StressAsync(name, chain, (int)Math.Min(1_000_000, each - done), run.Random(said.Count + (int)(done % 1_000_003)));
            }
            said.Add(shared ? name : $"({name} does not say so)");
        }
        return $"{operations} operations on {Blocks} blocks of {string.Join(", ", said)}: all as one disk";
    }

    private static async Task<bool> StressAsync(string name, NbdBackend chain, int operations, Random random)
    {
        await using FaultServer server = await FaultServer.StartAsync(chain, new NbdServerOptions());
        NbdClient[] clients = await Task.WhenAll(Enumerable.Range(0, Connections).Select(i => server.ConnectAsync()));
        try
        {
            if (!clients[0].Info.CanMultiConn)
            {
                return false;
            }
            await clients[0].ZeroAsync(0, Size);
            var history = new BlockHistory(Blocks + MostBlocks, operations);
            int each = operations / (Connections * WorkersEach);
            await Task.WhenAll(clients.SelectMany(client => Enumerable.Range(0, WorkersEach).Select(
                _ =>
                {
                    int seed = random.Next();
                    return Task.Run(() => WorkAsync(client, history, each, new Random(seed)));
                })));
            await clients[0].FlushAsync();
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidOperationException($"{name}: {e.Message}", e);
        }
        finally
        {
            foreach (NbdClient client in clients)
            {
                await client.DisposeAsync();
            }
        }
        server.Log.AssertClean();
        return true;
    }

    private static async Task WorkAsync(NbdClient client, BlockHistory history, int operations, Random random)
    {
        byte[] buffer = new byte[MostBlocks * BlockHistory.BlockSize];
        long[] floors = new long[MostBlocks];
        for (int i = 0; i < operations; i++)
        {
            int block = random.Next(Blocks);
            int count = 1 + random.Next(MostBlocks);
            long offset = (long)block * BlockHistory.BlockSize;
            Memory<byte> part = buffer.AsMemory(0, count * BlockHistory.BlockSize);
            switch (random.Next(64))
            {
                case 0:
                    await client.FlushAsync();
                    break;
                case < 32:
                    int write = history.Begin(block, part.Span);
                    await client.WriteAsync(part, offset, i % 100 == 0 && client.Info.CanFua != Support.None ? RequestFlags.Fua : RequestFlags.None);
                    history.End(write);
                    break;
                default:
                    history.Look(block, floors.AsSpan(0, count));
                    await client.ReadAsync(part, offset);
                    history.Check(block, part.Span, floors.AsSpan(0, count));
                    break;
            }
        }
    }
}
