using NbdKit.Faults.Hostile;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Faults;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>
/// 8 connections write, read and flush the same 64 blocks of each disk that says it may be used so, and the power is cut under those
/// that outlive it.
/// </summary>
internal sealed class SharedDisk : Fault
{
    private const int Connections = 8;
    private const int WorkersEach = 4;
    private const long Size = 1 << 20;

    public override string Id => "F17";

    public override string Title => "one disk for several connections";

    public override async Task<string> RunAsync(FaultRun run)
    {
        long operations = run.Size(1_000_000, 100_000_000);
        using var folder = new ScratchDirectory();
        string disk = folder.WriteHole("disk", Size);
        string cached = folder.WriteHole("cached", Size);
        PowercutPlugin bare = Powercut();
        PowercutPlugin behindCache = Powercut();
        (string Name, NbdBackend Chain, Func<int, Memory<byte>, ValueTask>? Cut)[] chains =
        [
            ("memory", Memory(), null),
            ("file", NbdBackend.Compose(new FilePlugin { Path = disk }), (_, image) => ReadFileAsync(disk, image)),
            ("cow of memory", Memory(new CowFilter()), null),
            ("cache of a file", NbdBackend.Compose(new FilePlugin { Path = cached }, [new CacheFilter()]), (_, image) => ReadFileAsync(cached, image)),
            ("blocksize of memory", Memory(new BlockSizeFilter { MinBlock = 4096 }), null),
            ("mirror of memory", NbdBackend.Compose(new MirrorPlugin { Chains = [Memory(), Memory()] }), null),
            ("powercut", NbdBackend.Compose(bare), (seed, image) => CutAsync(bare, seed, image)),
            ("cache of powercut", NbdBackend.Compose(behindCache, [new CacheFilter()]), (seed, image) => CutAsync(behindCache, seed, image)),
        ];
        var said = new List<string>();
        foreach ((string name, NbdBackend chain, Func<int, Memory<byte>, ValueTask>? cut) in chains)
        {
            long each = operations / chains.Length;
            bool shared = true;
            for (long done = 0; done < each && shared; done += 1_000_000)
            {
                shared = await StressAsync(
                    name, chain, cut, (int)Math.Min(1_000_000, each - done), run.Random(said.Count + (int)(done % 1_000_003)));
            }
            said.Add(shared ? name : $"({name} does not say so)");
        }
        return $"{operations} operations on the same blocks of {string.Join(", ", said)}: all as one disk";
    }

    private static async Task<bool> StressAsync(
        string name, NbdBackend chain, Func<int, Memory<byte>, ValueTask>? cut, int operations, Random random)
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
            await clients[0].FlushAsync();
            var work = new SharedDiskWork(new BlockHistory(SharedDiskWork.Blocks, operations), cut);
            int each = operations / (Connections * WorkersEach);
            await Task.WhenAll(clients.SelectMany(client => Enumerable.Range(0, WorkersEach).Select(
                _ =>
                {
                    int seed = random.Next();
                    return Task.Run(() => work.RunAsync([client], each, new Random(seed)));
                })));
            await work.EndAsync(clients, random);
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

    private static NbdBackend Memory(params IReadOnlyList<INbdFilter> filters) => NbdBackend.Compose(new MemoryPlugin { Size = Size }, filters);

    private static PowercutPlugin Powercut() => new() { Chain = Memory() };

    /// <summary>What is in the file is what outlives the process, though not the machine.</summary>
    private static async ValueTask ReadFileAsync(string path, Memory<byte> image)
    {
        using FileStream file = File.Open(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        await file.ReadExactlyAsync(image);
    }

    private static async ValueTask CutAsync(PowercutPlugin disk, int seed, Memory<byte> buffer)
    {
        await using PowercutImage image = await disk.CutAsync(seed);
        await image.ReadAsync(buffer, 0);
    }
}
