namespace NbdKit.Tests.Plugins;

/// <summary>A random history of requests on a disk, each compared with a plain array of bytes.</summary>
internal sealed class ChainHistory(NextContext disk, byte[] model, Random random, string what)
{
    private const int LargestData = 20_000;

    private readonly int _unit = (int)Math.Max(1, disk.Info.BlockSize.Minimum);

    /// <summary>Whether what a trimmed range holds stays the same until it is written.</summary>
    public bool Trims { get; init; } = true;

    public async Task RunAsync(int operations)
    {
        Assert.That(disk.Info.Size, Is.EqualTo(model.Length), what);
        for (int i = 0; i < operations; i++)
        {
            try
            {
                await OneAsync();
            }
            catch (Exception e) when (e is not AssertionException)
            {
                throw new AssertionException($"{what}: operation {i}", e);
            }
        }
        await CompareAsync();
    }

    public async Task CompareAsync()
    {
        byte[] all = new byte[model.Length];
        for (int at = 0; at < all.Length; at += 65_536)
        {
            await disk.ReadAsync(all.AsMemory(at, Math.Min(65_536, all.Length - at)), at, default);
        }
        Assert.That(all.AsSpan().SequenceEqual(model), what);
    }

    private async Task OneAsync()
    {
        (int offset, int length) = RandomRange();
        RequestFlags fua = disk.Info.CanFua != Support.None && random.Next(4) == 0 ? RequestFlags.Fua : RequestFlags.None;
        switch (random.Next(8))
        {
            case 0 or 1:
                byte[] read = new byte[length];
                await disk.ReadAsync(read, offset, default);
                Assert.That(read.AsSpan().SequenceEqual(model.AsSpan(offset, length)), what);
                break;
            case 2 or 3:
                byte[] data = new byte[length];
                random.NextBytes(data);
                data.CopyTo(model, offset);
                await disk.WriteAsync(data, offset, fua, default);
                break;
            case 4:
                RequestFlags flags = fua | (random.Next(2) == 0 ? RequestFlags.MayTrim : 0)
                    | (disk.Info.CanFastZero && random.Next(2) == 0 ? RequestFlags.FastZero : 0);
                try
                {
                    await disk.ZeroAsync(offset, length, flags, default);
                    model.AsSpan(offset, length).Clear();
                }
                catch (NbdException e) when (e.Error == NbdError.NotSupported && (flags & RequestFlags.FastZero) != 0)
                {
                    // Declined, without effect: the reads will tell.
                }
                break;
            case 5 when Trims && disk.Info.CanTrim:
                await disk.TrimAsync(offset, length, fua, default);
                // What it holds now is undefined, but stays.
                await disk.ReadAsync(model.AsMemory(offset, length), offset, default);
                break;
            case 6:
                await disk.FlushAsync(default);
                break;
            default:
                await ExtentsAsync(offset, length);
                break;
        }
    }

    private async Task ExtentsAsync(int offset, int length)
    {
        var extents = new ExtentList(offset, model.Length);
        RequestFlags flags = random.Next(2) == 0 ? RequestFlags.RequestOne : RequestFlags.None;
        await disk.ExtentsAsync(offset, length, flags, extents, default);
        long at = offset;
        foreach (Extent extent in extents)
        {
            Assert.That(extent.Offset, Is.EqualTo(at), what);
            at = extent.End;
            if ((extent.Status & ExtentStatus.Zero) != 0)
            {
                Assert.That(
                    model.AsSpan((int)extent.Offset, (int)extent.Length).ContainsAnyExcept((byte)0), Is.False,
                    $"{what}: {extent} is said to be zero");
            }
        }
        Assert.That(at, Is.GreaterThan(offset), what);
    }

    private (int Offset, int Length) RandomRange()
    {
        int units = model.Length / _unit;
        int largest = Math.Min(units, LargestData / _unit);
        int length = random.Next(3) == 0 ? random.Next(1, Math.Min(largest, 4) + 1) : random.Next(1, largest + 1);
        int offset = random.Next(6) switch { 0 => 0, 1 => units - length, _ => random.Next(units - length + 1) };
        return (offset * _unit, length * _unit);
    }
}
