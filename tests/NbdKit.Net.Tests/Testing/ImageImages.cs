using System.Text.Json.Nodes;

namespace NbdKit.Tests.Testing;

/// <summary>Disks for images to be made of, and what is known of an image compared with a plain array of bytes.</summary>
internal static class ImageImages
{
    /// <summary>A disk with data, holes and ends of both in all sorts of places.</summary>
    public static byte[] Content(int size, int seed)
    {
        byte[] content = TestData.Random(size, seed);
        var random = new Random(seed);
        for (int i = 0; i < 12; i++)
        {
            int from = random.Next(size / 512) * 512;
            content.AsSpan(from, random.Next(Math.Min(2 << 20, size - from))).Clear();
        }
        return content;
    }

    /// <summary>Runs random reads, reads that tell holes, and questions about extents.</summary>
    public static async Task CheckAsync(NextContext disk, byte[] expected, int seed, int rounds = 150)
    {
        string what = $"seed {seed}";
        Assert.That(disk.Info.Size, Is.EqualTo(expected.Length), what);
        Assert.That((disk.Info.CanWrite, disk.Info.CanExtents), Is.EqualTo((false, true)), what);
        var random = new Random(seed);
        for (int i = 0; i < rounds; i++)
        {
            int length = random.Next(1, random.Next(3) == 0 ? 3_000_000 : 40_000);
            int offset = random.Next(Math.Max(1, expected.Length - length));
            length = Math.Min(length, expected.Length - offset);
            byte[] read = TestData.Random(length, i);
            if (i % 2 == 0)
            {
                await disk.ReadAsync(read, offset, default);
            }
            else
            {
                var holes = new ExtentList(offset, offset + length, maximumCount: int.MaxValue);
                await disk.ReadSparseAsync(read, offset, holes, default);
                foreach (Extent hole in holes.Where(hole => (hole.Status & ExtentStatus.Zero) != 0))
                {
                    read.AsSpan((int)hole.Offset - offset, (int)hole.Length).Clear();
                }
            }
            Assert.That(read.AsSpan().SequenceEqual(expected.AsSpan(offset, length)), $"{what}, read {i}: {length} bytes at {offset}");
        }
        byte[] all = new byte[expected.Length];
        await disk.ReadAsync(all, 0, default);
        Assert.That(all.AsSpan().SequenceEqual(expected), what);
        foreach (Extent extent in await disk.ExtentsFullAsync(0, expected.Length, ExtentList.BaseAllocation, default))
        {
            Assert.That(
                extent.Status == ExtentStatus.Data || !expected.AsSpan((int)extent.Offset, (int)extent.Length).ContainsAnyExcept((byte)0),
                $"{what}: {extent} is not zero");
        }
    }

    /// <summary>Opens, reads and maps what is left of a damaged image: content is as good as a clear error, and nothing else is good.</summary>
    public static async Task ExploreAsync(NbdBackend damaged, Random random, string what)
    {
        await using NbdBackend chain = damaged;
        try
        {
            await using NextContext disk = await chain.OpenAsync();
            for (int i = 0; i < 10 && disk.Info.Size > 0; i++)
            {
                long offset = random.NextInt64(disk.Info.Size);
                await TestData.ReadAsync(disk, offset, (int)Math.Min(10_000, disk.Info.Size - offset));
                await disk.ExtentsAsync(
                    offset, disk.Info.Size - offset, RequestFlags.None, new ExtentList(offset, disk.Info.Size), default);
            }
        }
        catch (NbdException)
        {
            // A clear error.
        }
        catch (Exception e)
        {
            throw new AssertionException($"{what}: {e}", e);
        }
    }

    /// <summary>What qemu-img says of a disk: neighbours that are alike are joined.</summary>
    public static async Task<List<(long Start, long Length, bool Data, bool Zero)>> MapAsync(string format, string disk)
    {
        JsonArray map = JsonNode.Parse(await Peer.OutputAsync("qemu-img", "map", "--output=json", "-f", format, disk))!.AsArray();
        var joined = new List<(long Start, long Length, bool Data, bool Zero)>();
        foreach (JsonNode? entry in map)
        {
            (long start, long length) = ((long)entry!["start"]!, (long)entry["length"]!);
            // Of what a flat file below does not have, QEMU says both if it looked through a format, and zero alone if not.
            bool zero = (bool)entry["zero"]!;
            bool data = (bool)entry["data"]! && !zero;
            if (joined.Count > 0 && (joined[^1].Data, joined[^1].Zero) == (data, zero))
            {
                joined[^1] = joined[^1] with { Length = joined[^1].Length + length };
            }
            else
            {
                joined.Add((start, length, data, zero));
            }
        }
        return joined;
    }

    /// <summary>
    /// Flips bits of an image, and opens, reads and maps what is left of it: all must end soon, and well or with an error of a
    /// request.
    /// </summary>
    public static async Task FuzzAsync(byte[] image, Func<byte[], NbdBackend> open, IReadOnlyList<int> places, int seed, int rounds)
    {
        var random = new Random(seed);
        byte[] buffer = new byte[65_536];
        for (int i = 0; i < rounds; i++)
        {
            byte[] damaged = (byte[])image.Clone();
            int at = places[random.Next(places.Count)];
            damaged[at] ^= (byte)(1 << random.Next(8));
            try
            {
                await using NbdBackend chain = open(damaged);
                await using NextContext disk = await chain.OpenAsync();
                long size = disk.Info.Size;
                foreach (long offset in new[] { 0, size / 2, Math.Max(0, size - buffer.Length) })
                {
                    try
                    {
                        await disk.ReadAsync(buffer.AsMemory(0, (int)Math.Min(buffer.Length, size - offset)), offset, default);
                    }
                    catch (NbdException e)
                    {
                        Assert.That(e.Error, Is.EqualTo(NbdError.IoError), $"seed {seed}, byte {at}: {e.Message}");
                    }
                }
                var extents = new ExtentList(0, size);
                await disk.ExtentsAsync(0, size, RequestFlags.None, extents, default);
            }
            catch (NbdException e)
            {
                Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument).Or.EqualTo(NbdError.IoError), $"seed {seed}, byte {at}: {e.Message}");
            }
            catch (Exception e) when (e is not AssertionException)
            {
                throw new AssertionException($"seed {seed}, byte {at}", e);
            }
        }
    }
}
