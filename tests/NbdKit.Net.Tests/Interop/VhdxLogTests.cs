using System.Buffers.Binary;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>VHDX images that were not closed: made by QEMU, with a log written by hand as the format says.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class VhdxLogTests
{
    private const int Seed = 20261128;
    private const int Sector = VhdxLogWriter.Sector;
    private const int Mebibyte = 1 << 20;

    private static async Task<byte[]> MakeAsync(ScratchDirectory folder, string format = "dynamic,block_size=1048576")
    {
        Peer.Require("qemu-img");
        folder.Write("raw", ImageImages.Content(5 * Mebibyte, Seed));
        await Peer.OutputAsync(
            "qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", $"subformat={format}", folder["raw"], folder["disk.vhdx"]);
        return await File.ReadAllBytesAsync(folder["disk.vhdx"]);
    }

    private static NbdBackend Chain(byte[] image)
        => NbdBackend.Compose(new VhdxPlugin { Chain = NbdBackend.Compose(new TestPlugin(new TestExport { Data = image })) });

    private static async Task<byte[]> ContentAsync(byte[] image)
    {
        await using NbdBackend chain = Chain(image);
        await using NextContext disk = await chain.OpenAsync();
        byte[] content = new byte[disk.Info.Size];
        await disk.ReadAsync(content, 0, default);
        return content;
    }

    private static string Refusal(byte[] image) => TestData.Failure(async () => await Chain(image).OpenAsync()).Message;

    [Test]
    public async Task A_log_is_replayed_as_QEMU_does_it([Values(0, 24 << 10, 1020 << 10)] int position)
    {
        Peer.Require("qemu-img");
        using var folder = new ScratchDirectory();
        byte[] image = await MakeAsync(folder);
        byte[] whole = (byte[])image.Clone();
        // The block table and some of the disk are as they were before; what they are to be is in the log.
        int table = Region(image);
        byte[] entries = image[table..(table + Sector)];
        int data = (int)(BinaryPrimitives.ReadUInt64LittleEndian(entries) >> 20 << 20);
        image.AsSpan(table, Sector).Clear();
        image.AsSpan(data + 8192, 5 * Sector).Fill(0xEE);
        byte[] other = TestData.Random(Sector, Seed);
        var log = new VhdxLogWriter(image, position, 41) { FlushedSize = image.Length, FileSize = image.Length + Mebibyte };
        log.Add((table, Sector, other), (data + 8192, 2 * Sector, null));
        log.Add((table, Sector, entries), (data + 8192 + Sector, Sector, other));
        log.Add((data + 8192 + (2 * Sector), 3 * Sector, null));
        whole.AsSpan(data + 8192, 5 * Sector).Clear();
        other.CopyTo(whole, data + 8192 + Sector);
        byte[] expected = await ContentAsync(whole);
        byte[] before = (byte[])image.Clone();
        Assert.That((await ContentAsync(image)).AsSpan().SequenceEqual(expected));
        Assert.That(image, Is.EqualTo(before), "the image stays as it is");
        if (position > 1000 << 10)
        {
            // QEMU begins at the beginning of the log although the first entry is at its end.
            return;
        }
        folder.Write("dirty.vhdx", image);
        await Peer.OutputAsync("qemu-img", "check", "-r", "all", "-f", "vhdx", folder["dirty.vhdx"]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "vhdx", "-O", "raw", folder["dirty.vhdx"], folder["out"]);
        Assert.That((await File.ReadAllBytesAsync(folder["out"])).AsSpan().SequenceEqual(expected), "QEMU");
    }

    [Test]
    public async Task Whatever_is_in_the_log_reads_as_if_it_were_in_place([Values("fixed", "dynamic,block_size=1048576")] string format)
    {
        using var folder = new ScratchDirectory();
        byte[] clean = await MakeAsync(folder, format);
        int data = (int)(BinaryPrimitives.ReadUInt64LittleEndian(clean.AsSpan(Region(clean))) >> 20 << 20);
        for (int seed = 1; seed <= 8; seed++)
        {
            var random = new Random(seed);
            byte[] dirty = (byte[])clean.Clone();
            byte[] patched = (byte[])clean.Clone();
            var log = new VhdxLogWriter(dirty, random.Next(256) * Sector, (ulong)random.NextInt64(1L << 40)) { FlushedSize = dirty.Length };
            // Some that no longer matter, as the oldest one is set behind them.
            for (int i = random.Next(3); i > 0; i--)
            {
                (int at, int length) = log.Add((data, 8 * Sector, null));
                log.Tail = (at + length) % log.LogLength;
            }
            for (int i = random.Next(1, 6); i > 0; i--)
            {
                log.Add([.. Enumerable.Range(0, random.Next(1, 9)).Select(_ =>
                {
                    int offset = data + (random.Next((clean.Length - data) / Sector) * Sector);
                    byte[]? bytes = random.Next(2) == 0 ? null : TestData.Random(Sector, random.Next());
                    int length = bytes is null ? Math.Min(random.Next(20) * Sector, clean.Length - offset) : Sector;
                    patched.AsSpan(offset, length).Clear();
                    bytes?.CopyTo(patched, offset);
                    return ((long)offset, (long)length, bytes);
                })]);
            }
            byte[] expected = await ContentAsync(patched);
            await using NbdBackend chain = Chain(dirty);
            await using NextContext disk = await chain.OpenAsync();
            await ImageImages.CheckAsync(disk, expected, seed, 60);
        }
    }

    [Test]
    public async Task An_entry_that_is_not_whole_ends_the_log()
    {
        using var folder = new ScratchDirectory();
        byte[] clean = await MakeAsync(folder);
        int data = (int)(BinaryPrimitives.ReadUInt64LittleEndian(clean.AsSpan(Region(clean))) >> 20 << 20);
        byte[] dirty = (byte[])clean.Clone();
        var log = new VhdxLogWriter(dirty, 8192, 1) { FlushedSize = dirty.Length };
        (int At, int Length)[] entries =
            [.. Enumerable.Range(0, 3).Select(i => log.Add((data + (i * Sector), Sector, TestData.Random(Sector, i)), (data + (9 * Sector), Sector, null)))];
        for (int broken = 0; broken < 4; broken++)
        {
            byte[] image = (byte[])dirty.Clone();
            if (broken < 3)
            {
                image[log.LogAt + entries[broken].At + entries[broken].Length - 100] ^= 1;
            }
            // A first entry that is broken leaves none that the others could begin with.
            if (broken == 0)
            {
                Assert.That(Refusal(image), Does.Contain("changes in its log").And.Contain("no entry that is whole"));
                continue;
            }
            byte[] patched = (byte[])clean.Clone();
            patched.AsSpan(data + (9 * Sector), Sector).Clear();
            for (int i = 0; i < broken; i++)
            {
                TestData.Random(Sector, i).CopyTo(patched, data + (i * Sector));
            }
            byte[] expected = await ContentAsync(patched);
            Assert.That((await ContentAsync(image)).AsSpan().SequenceEqual(expected), $"{broken}");
        }
    }

    [Test]
    public async Task A_log_that_cannot_be_replayed_is_refused()
    {
        using var folder = new ScratchDirectory();
        byte[] clean = await MakeAsync(folder);
        (string Message, Action<VhdxLogWriter> Break)[] lies =
        [
            ("version 3", log => log.SetHeaders(Guid.NewGuid(), (image, at) => image[at + 64] = 3)),
            ("it has 0 bytes", log => log.SetHeaders(Guid.NewGuid(), (image, at) => image.AsSpan(at + 68, 4).Clear())),
            ("it has 4294967295 bytes", log => log.SetHeaders(Guid.NewGuid(), (image, at) => image.AsSpan(at + 68, 4).Fill(0xFF))),
            ("it is at 18446744073709551615", log => log.SetHeaders(Guid.NewGuid(), (image, at) => image.AsSpan(at + 72, 8).Fill(0xFF))),
            ("no entry that is whole", log => log.SetHeaders(Guid.NewGuid())),
            ("when it was written, and has", log => { log.FlushedSize = long.MaxValue; log.Add((Mebibyte, Sector, null)); }),
        ];
        foreach ((string message, Action<VhdxLogWriter> lie) in lies)
        {
            byte[] image = (byte[])clean.Clone();
            lie(new VhdxLogWriter(image, 0, 1) { FlushedSize = image.Length });
            Assert.That(Refusal(image), Does.Contain("changes in its log").And.Contain(message));
        }
    }

    [Test]
    public async Task Entries_made_to_take_time_are_given_up()
    {
        using var folder = new ScratchDirectory();
        byte[] image = await MakeAsync(folder);
        var log = new VhdxLogWriter(image, 0, 1);
        (int at, _) = log.Add((Mebibyte, Sector, null));
        byte[] entry = image[(log.LogAt + at)..(log.LogAt + at + Sector)];
        // An entry in each sector that says that it goes once around the log.
        BinaryPrimitives.WriteInt32LittleEndian(entry.AsSpan(8), log.LogLength);
        for (int i = 0; i < log.LogLength; i += Sector)
        {
            entry.CopyTo(image, log.LogAt + i);
        }
        Assert.That(Refusal(image), Does.Contain("overlap each other"));
    }

    [Test]
    public async Task Any_damage_of_the_log_is_found_or_without_effect()
    {
        using var folder = new ScratchDirectory();
        byte[] image = await MakeAsync(folder);
        var log = new VhdxLogWriter(image, 0, 1) { FlushedSize = image.Length, FileSize = long.MaxValue };
        log.Add((Region(image), Sector, TestData.Random(Sector, Seed)), (long.MaxValue - Sector + 1 - Sector, Sector, null));
        for (int seed = 0; seed < 200; seed++)
        {
            var random = new Random(seed);
            byte[] damaged = (byte[])image.Clone();
            damaged[log.LogAt + random.Next(300)] ^= (byte)(1 << random.Next(8));
            if (random.Next(3) > 0)
            {
                VhdxLogWriter.Sum(damaged.AsSpan(log.LogAt, 2 * Sector));
            }
            await ImageImages.ExploreAsync(Chain(damaged), random, $"seed {seed}");
        }
    }

    [Test]
    public async Task A_differencing_image_is_opened_with_its_parent_and_with_no_other()
    {
        using var folder = new ScratchDirectory();
        byte[] parent = await MakeAsync(folder);
        byte[] child = (byte[])parent.Clone();
        folder.Write("parent.vhdx", parent);
        MakeChild(child, DataId(parent));
        folder.Write("child.vhdx", child);
        byte[] changed = (byte[])parent.Clone();
        changed[(64 << 10) + 32]++;
        changed[(128 << 10) + 32]++;
        VhdxLogWriter.Sum(changed.AsSpan(64 << 10, Sector));
        VhdxLogWriter.Sum(changed.AsSpan(128 << 10, Sector));
        folder.Write("changed.vhdx", changed);
        byte[] expected = await ContentAsync(parent);
        var catalogue = new NbdCatalogue();
        await using (NbdBackend chain = catalogue.Compose("vhdx", [], [new("", folder["child.vhdx"]), new("parent", folder["parent.vhdx"])]))
        {
            await using NextContext disk = await chain.OpenAsync();
            Assert.That((await TestData.ReadAsync(disk, 0, expected.Length)).AsSpan().SequenceEqual(expected));
        }
        await using (NbdBackend chain = catalogue.Compose("vhdx", [], [new("", folder["child.vhdx"]), new("parent", folder["changed.vhdx"])]))
        {
            NbdException failure = TestData.Failure(async () => await chain.OpenAsync());
            Assert.That(failure.Error, Is.EqualTo(NbdError.InvalidArgument));
            Assert.That(failure.Message, Does.Contain("'..\\base.vhdx' with the data id").And.Contain("the parent that was given has"));
        }
        // A child of a child: the one in the middle knows its parent too.
        byte[] grandchild = (byte[])parent.Clone();
        MakeChild(grandchild, DataId(child));
        folder.Write("grandchild.vhdx", grandchild);
        await using (NbdBackend chain = catalogue.Compose(
            "vhdx", [], [new("", folder["grandchild.vhdx"]), new("parent", folder["child.vhdx"]), new("parent", folder["parent.vhdx"])]))
        {
            await using NextContext disk = await chain.OpenAsync();
            Assert.That((await TestData.ReadAsync(disk, 0, expected.Length)).AsSpan().SequenceEqual(expected));
        }
    }

    /// <summary>Makes an image a differencing one that has no block itself.</summary>
    private static void MakeChild(byte[] image, Guid parent)
    {
        image.AsSpan(Region(image), Sector).Clear();
        int metadata = Region(image, "8B7CA206-4790-4B9A-B8FE-575F050F886E");
        Span<byte> table = image.AsSpan(metadata, 65_536);
        int at = table.IndexOf(new Guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").ToByteArray());
        image[metadata + (int)BinaryPrimitives.ReadUInt32LittleEndian(table[(at + 16)..]) + 4] |= 2;
        (string Name, string Value)[] pairs =
            [("relative_path", "..\\base.vhdx"), ("parent_linkage", $"{{{parent}}}"), ("other", "")];
        const int Place = 512 << 10;
        Span<byte> item = image.AsSpan(metadata + Place, 1000);
        new Guid("B04AEFB7-D19E-4A81-B789-25B8E9445913").ToByteArray().CopyTo(item);
        BinaryPrimitives.WriteInt16LittleEndian(item[18..], (short)pairs.Length);
        int text = 20 + (pairs.Length * 12);
        for (int i = 0; i < pairs.Length; i++)
        {
            Span<byte> entry = item.Slice(20 + (i * 12), 12);
            foreach ((string value, int offset, int length) in new[] { (pairs[i].Name, 0, 8), (pairs[i].Value, 4, 10) })
            {
                BinaryPrimitives.WriteInt32LittleEndian(entry[offset..], text);
                int count = System.Text.Encoding.Unicode.GetBytes(value, item[text..]);
                BinaryPrimitives.WriteInt16LittleEndian(entry[length..], (short)count);
                text += count;
            }
        }
        short entries = BinaryPrimitives.ReadInt16LittleEndian(table[10..]);
        BinaryPrimitives.WriteInt16LittleEndian(table[10..], (short)(entries + 1));
        Span<byte> locator = table.Slice(32 + (entries * 32), 32);
        new Guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C").ToByteArray().CopyTo(locator);
        BinaryPrimitives.WriteInt32LittleEndian(locator[16..], Place);
        BinaryPrimitives.WriteInt32LittleEndian(locator[20..], text);
        locator[24] = 4;
    }

    /// <summary>The id of the data in the header that holds.</summary>
    private static Guid DataId(byte[] image)
    {
        int at = new[] { 64 << 10, 128 << 10 }.MaxBy(at => BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(at + 8)));
        return new Guid(image.AsSpan(at + 32, 16));
    }

    private static int Region(byte[] image, string id = "2DC27766-F623-4200-9D64-115E9BFD4A08")
    {
        int at = (192 << 10) + image.AsSpan(192 << 10, 65_536).IndexOf(new Guid(id).ToByteArray());
        return (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(at + 16));
    }
}
