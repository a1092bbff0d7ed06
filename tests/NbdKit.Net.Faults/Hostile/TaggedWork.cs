using System.Diagnostics;
using System.Net;

namespace NbdKit.Faults.Hostile;

/// <summary>Clients that write and read what they wrote, each its own part of the disk, and connect anew whenever they are cut off.</summary>
/// <param name="name">What is done to them, for what is said.</param>
/// <param name="options">How they connect.</param>
/// <param name="mayFail">Whether requests may fail; else that they do fails the row.</param>
/// <param name="mostBytes">The largest request.</param>
internal sealed class TaggedWork(string name, NbdClientOptions options, bool mayFail, int mostBytes = 64 << 10)
{
    /// <summary>How many clients there are.</summary>
    public const int Workers = 4;

    /// <summary>The bytes of the disk that all of them use.</summary>
    public const long Bytes = (long)Region * Workers;

    private const int Region = 1 << 20;

    private long _begun;
    private long _right;
    private long _failed;
    private long _connections;

    /// <summary>Works until the time is over.</summary>
    /// <returns>What was seen; fails if nothing got through, or something was wrong.</returns>
    public async Task<string> RunAsync(EndPoint endPoint, long start, TimeSpan time, Random random)
    {
        await Task.WhenAll(Enumerable.Range(0, Workers).Select(i =>
        {
            int seed = random.Next();
            return Task.Run(() => WorkAsync(endPoint, start + (i * (long)Region), time, new Random(seed)));
        }));
        if (_right == 0 || _begun != _right + _failed)
        {
            throw new InvalidOperationException($"{name}: of {_begun} requests {_right} were answered and {_failed} failed.");
        }
        return $"{name} {_right} right, {_failed} failed, {_connections} connections";
    }

    /// <summary>What was written when the connection ended may be there or not.</summary>
    private async Task WorkAsync(EndPoint endPoint, long start, TimeSpan time, Random random)
    {
        byte[] model = new byte[Region];
        bool[] unknown = new bool[Region / 512];
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < time)
        {
            try
            {
                await using NbdClient client = await NbdClient.ConnectAsync(endPoint, options);
                Interlocked.Increment(ref _connections);
                while (watch.Elapsed < time)
                {
                    await StepAsync(client, start, model, unknown, random);
                }
            }
            catch (Exception e) when (e is NbdClientException or NbdException && mayFail)
            {
                // It comes back.
            }
            catch (Exception e) when (e is NbdClientException or NbdException)
            {
                throw new InvalidOperationException($"{name}: {e.Message}", e);
            }
        }
    }

    /// <summary>One request, which is answered once or fails once.</summary>
    private async Task StepAsync(NbdClient client, long start, byte[] model, bool[] unknown, Random random)
    {
        int length = 512 * (1 + random.Next(mostBytes / 512));
        int at = 512 * random.Next((Region - length) / 512);
        byte[] buffer = new byte[length];
        bool writes = random.Next(2) == 0;
        if (writes)
        {
            random.NextBytes(buffer);
            unknown.AsSpan(at / 512, length / 512).Fill(true);
        }
        Interlocked.Increment(ref _begun);
        try
        {
            await (writes ? client.WriteAsync(buffer, start + at) : client.ReadAsync(buffer, start + at));
        }
        catch
        {
            Interlocked.Increment(ref _failed);
            throw;
        }
        Interlocked.Increment(ref _right);
        if (writes)
        {
            buffer.CopyTo(model, at);
            unknown.AsSpan(at / 512, length / 512).Clear();
            return;
        }
        for (int i = 0; i < length; i += 512)
        {
            if (!unknown[(at + i) / 512] && !buffer.AsSpan(i, 512).SequenceEqual(model.AsSpan(at + i, 512)))
            {
                throw new InvalidOperationException($"{name}: the block at {start + at + i} is not what was written.");
            }
        }
    }
}
