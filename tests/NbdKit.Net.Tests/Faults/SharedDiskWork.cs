namespace NbdKit.Tests.Faults;

/// <summary>Writes, reads and flushes of the same 64 blocks by clients that share a disk, each of them judged.</summary>
/// <param name="history">What was done.</param>
/// <param name="cut">
/// Draws, by a seed, what a power cut at this moment would leave of the first blocks; null if nothing of this disk outlives one.
/// </param>
internal sealed class SharedDiskWork(BlockHistory history, Func<int, Memory<byte>, ValueTask>? cut)
{
    /// <summary>How many blocks of the disk are used.</summary>
    public const int Blocks = Hot + MostBlocks;

    private const int Hot = 64;
    private const int MostBlocks = 8;

    /// <summary>Does so many things, one after the other, each by any of the clients.</summary>
    public async Task RunAsync(IReadOnlyList<NbdClient> clients, int operations, Random random)
    {
        byte[] buffer = new byte[Blocks * BlockHistory.BlockSize];
        var sight = new BlockSight(Blocks);
        for (int i = 0; i < operations; i++)
        {
            NbdClient client = clients[random.Next(clients.Count)];
            int block = random.Next(Hot);
            Memory<byte> part = buffer.AsMemory(0, (1 + random.Next(MostBlocks)) * BlockHistory.BlockSize);
            switch (random.Next(64))
            {
                case 0:
                    await FlushAsync(client, sight);
                    break;
                case 1:
                    await CutAsync(random.Next(), buffer, sight);
                    break;
                case < 32:
                    bool isDurable = i % 100 == 0 && client.Info.CanFua != Support.None;
                    int write = history.Begin(block, part.Span);
                    await client.WriteAsync(
                        part, (long)block * BlockHistory.BlockSize, isDurable ? RequestFlags.Fua : RequestFlags.None);
                    history.End(write, isDurable);
                    break;
                default:
                    await ReadAsync(client, block, part, sight);
                    break;
            }
        }
    }

    /// <summary>When nothing else happens: what one client flushes is durable, and all clients see the same.</summary>
    public async Task EndAsync(IReadOnlyList<NbdClient> clients, Random random)
    {
        byte[] buffer = new byte[Blocks * BlockHistory.BlockSize];
        var sight = new BlockSight(Blocks);
        await FlushAsync(clients[random.Next(clients.Count)], sight);
        await CutAsync(random.Next(), buffer, sight);
        foreach (NbdClient client in clients)
        {
            await ReadAsync(client, 0, buffer, sight);
        }
    }

    private async Task ReadAsync(NbdClient client, int block, Memory<byte> buffer, BlockSight sight)
    {
        history.Look(block, buffer.Length / BlockHistory.BlockSize, sight);
        await client.ReadAsync(buffer, (long)block * BlockHistory.BlockSize);
        history.Check(block, buffer.Span, sight);
    }

    private async Task FlushAsync(NbdClient client, BlockSight sight)
    {
        history.BeginFlush(sight);
        await client.FlushAsync();
        history.EndFlush(sight);
    }

    private async Task CutAsync(int seed, Memory<byte> buffer, BlockSight sight)
    {
        if (cut is not null)
        {
            history.LookDurable(sight);
            await cut(seed, buffer);
            history.CheckImage(buffer.Span, sight);
        }
    }
}
