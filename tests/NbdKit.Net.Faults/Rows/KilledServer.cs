using System.Runtime.InteropServices;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>The process of a server of a file is killed while clients write, and started again.</summary>
internal sealed class KilledServer : Fault
{
    private const int Clients = 4;
    private const int Workers = 8;
    private const int BlockSize = 512;
    private const int BlocksEach = 256;
    private const int Blocks = Clients * Workers * BlocksEach;

    // What each block was written with last, and last so that it is kept.
    private readonly long[] _issued = new long[Blocks];
    private readonly long[] _kept = new long[Blocks];
    private long _acknowledged;
    private long _number;

    public override string Id => "F05";

    public override string Title => "killed server";

    public override async Task<string> RunAsync(FaultRun run)
    {
        int cycles = (int)run.Size(20, 500);
        using var folder = new ScratchDirectory();
        string file = folder.WriteHole("disk", Blocks * BlockSize);
        Random random = run.Random();
        for (int cycle = 0; cycle <= cycles; cycle++)
        {
            string socket = folder[$"s{cycle}"];
            await using ServingChild server = await ServingChild.StartAsync(socket, file);
            await CheckAsync(server, cycle);
            if (cycle == cycles)
            {
                await server.EndAsync();
                break;
            }
            int seed = random.Next();
            Task[] clients = [.. Enumerable.Range(0, Clients).Select(i => ClientAsync(server, i, seed + i))];
            await Task.Delay(50 + random.Next(200));
            await server.KillAsync();
            await Task.WhenAll(clients).WaitAsync(20 * ProcessUse.Patience);
            File.Delete(socket);
        }
        return _acknowledged > cycles
            ? $"{cycles} kills, {_number} writes, {_acknowledged} blocks acknowledged as kept, none of them lost or torn"
            : throw new InvalidOperationException($"Only {_acknowledged} writes were acknowledged: this tested nothing.");
    }

    private async Task CheckAsync(ServingChild server, int cycle)
    {
        await using NbdClient client = await NbdClient.ConnectAsync(server.EndPoint);
        byte[] disk = new byte[Blocks * BlockSize];
        await client.ReadAsync(disk, 0);
        for (int block = 0; block < Blocks; block++)
        {
            ReadOnlySpan<long> words = MemoryMarshal.Cast<byte, long>(disk.AsSpan(block * BlockSize, BlockSize));
            if (words.ContainsAnyExcept(words[0]))
            {
                throw new InvalidOperationException($"After {cycle} kills block {block} is torn: {words[0]} and {words[^1]}.");
            }
            if (words[0] < _kept[block] || words[0] > _issued[block])
            {
                throw new InvalidOperationException(
                    $"After {cycle} kills block {block} holds {words[0]}; {_kept[block]} was acknowledged as kept, {_issued[block]} written last.");
            }
            // What is there is kept from now on: nobody may see it go again.
            _kept[block] = words[0];
        }
    }

    private async Task ClientAsync(ServingChild server, int number, int seed)
    {
        await using NbdClient client = await NbdClient.ConnectAsync(server.EndPoint);
        await Task.WhenAll(Enumerable.Range(0, Workers).Select(i => WorkAsync(client, (number * Workers) + i, new Random((seed * 31) + i))));
    }

    /// <summary>Writes to blocks of its own until the server is gone.</summary>
    private async Task WorkAsync(NbdClient client, int worker, Random random)
    {
        byte[] data = new byte[16 * BlockSize];
        var unflushed = new Dictionary<int, long>();
        try
        {
            while (true)
            {
                int count = 1 + random.Next(16);
                int first = (worker * BlocksEach) + random.Next(BlocksEach - count + 1);
                long value = Interlocked.Increment(ref _number);
                MemoryMarshal.Cast<byte, long>(data.AsSpan()).Fill(value);
                Array.Fill(_issued, value, first, count);
                bool fua = random.Next(4) == 0;
                await client.WriteAsync(
                    data.AsMemory(0, count * BlockSize), (long)first * BlockSize, fua ? RequestFlags.Fua : RequestFlags.None);
                for (int block = first; block < first + count; block++)
                {
                    unflushed[block] = value;
                }
                if (fua)
                {
                    Keep(Enumerable.Range(first, count).Select(block => KeyValuePair.Create(block, value)));
                }
                else if (random.Next(16) == 0)
                {
                    await client.FlushAsync();
                    Keep(unflushed);
                    unflushed.Clear();
                }
            }
        }
        catch (NbdClientException)
        {
            // It was killed.
        }
    }

    private void Keep(IEnumerable<KeyValuePair<int, long>> blocks)
    {
        foreach ((int block, long value) in blocks)
        {
            _kept[block] = Math.Max(_kept[block], value);
            Interlocked.Increment(ref _acknowledged);
        }
    }
}
