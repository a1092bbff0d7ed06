using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>Partition tables that the library makes, as the programs of the system and nbdkit see them.</summary>
[Platform("Linux")]
[Parallelizable(ParallelScope.All)]
public sealed class PartitioningTests
{
    private static string[] Files(ScratchDirectory folder, int count)
        => [.. Enumerable.Range(0, count).Select(i => folder.Write($"file{i}", TestData.Random(100_000 + (i * 70_007), i)))];

    private static async Task<string> CopyAsync(ScratchDirectory folder, string[] files, string type)
    {
        NbdBackend chain = new NbdCatalogue().Compose(
            "partitioning", [],
            [
                new("partition-type", type), new("mbr-id", "0x82"), new("type-guid", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"),
                new("", files[0]), new("mbr-id", "default"), new("type-guid", "default"), new("alignment", "65536"),
                .. files[1..].Select(file => new KeyValuePair<string, string>("", file)),
            ]);
        await using InteropServer server = await InteropServer.StartAsync(chain);
        await Peer.OutputAsync("nbdcopy", server.Uri, folder["disk"]);
        return folder["disk"];
    }

    [TestCase("mbr", 2)]
    [TestCase("mbr", 6)]
    [TestCase("gpt", 2)]
    [TestCase("gpt", 6)]
    public async Task Sfdisk_and_sgdisk_find_nothing_wrong(string type, int count)
    {
        Peer.Require("sfdisk", "sgdisk", "nbdcopy");
        using var folder = new ScratchDirectory();
        string[] files = Files(folder, count);
        string disk = await CopyAsync(folder, files, type);

        string verified = (await Peer.RunAsync("sfdisk", "--verify", disk)).Expect(0).Output;
        if (type == "gpt")
        {
            Assert.That(verified, Does.Contain("No errors detected"));
        }
        string[] lines = [.. (await Peer.OutputAsync("sfdisk", "--dump", disk)).Split('\n').Where(line => line.Contains("start="))];
        int[] data = [.. Enumerable.Range(0, lines.Length).Where(i => !lines[i].Contains("type=f,") && !lines[i].EndsWith("type=f"))];
        Assert.That(data, Has.Length.EqualTo(count));
        Assert.That(lines[0], Does.Contain(type == "gpt" ? "type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F" : "type=82").And.Contain("2048"));
        byte[] image = await File.ReadAllBytesAsync(disk);
        for (int i = 0; i < count; i++)
        {
            string start = lines[data[i]].Split("start=")[1].Split(',')[0].Trim();
            byte[] content = await File.ReadAllBytesAsync(files[i]);
            int offset = int.Parse(start, System.Globalization.CultureInfo.InvariantCulture) * 512;
            Assert.That(image.AsSpan(offset, content.Length).SequenceEqual(content), lines[data[i]]);
        }
        if (type == "gpt")
        {
            Assert.That(await Peer.OutputAsync("sgdisk", "-v", disk), Does.Contain("No problems found"));
        }
    }

    [TestCase("mbr", 1)]
    [TestCase("mbr", 4)]
    [TestCase("mbr", 7)]
    [TestCase("gpt", 1)]
    [TestCase("gpt", 7)]
    public async Task Nbdkit_makes_the_same_disk_but_for_random_guids_and_names_of_files(string type, int count)
    {
        Peer.Require("nbdkit", "nbdcopy");
        using var folder = new ScratchDirectory();
        string[] files = Files(folder, count);
        byte[] ours = await File.ReadAllBytesAsync(await CopyAsync(folder, files, type));
        await using (BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(
            folder,
            [
                "partitioning", $"partition-type={type}", "mbr-id=0x82", "type-guid=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", files[0],
                "mbr-id=default", "type-guid=default", "alignment=65536", .. files[1..],
            ]))
        {
            await Peer.OutputAsync("nbdcopy", nbdkit.Uri, folder["theirs"]);
        }
        byte[] theirs = await File.ReadAllBytesAsync(folder["theirs"]);
        Assert.That(ours, Has.Length.EqualTo(theirs.Length));
        if (type == "gpt")
        {
            Mask(ours, count);
            Mask(theirs, count);
        }
        Assert.That(ours.AsSpan().CommonPrefixLength(theirs), Is.EqualTo(theirs.Length));
    }

    // Clears the size of the header (92 in the specification, while nbdkit counts the padding after it), checksums, the disk's GUID,
    // and GUIDs and names of the partitions, in both tables.
    private static void Mask(byte[] disk, int count)
    {
        foreach ((int header, int entries) in new[] { (512, 1024), (disk.Length - 512, disk.Length - (33 * 512)) })
        {
            disk.AsSpan(header + 12, 8).Clear();
            disk.AsSpan(header + 56, 16).Clear();
            disk.AsSpan(header + 88, 4).Clear();
            for (int i = 0; i < count; i++)
            {
                disk.AsSpan(entries + (128 * i) + 16, 16).Clear();
                disk.AsSpan(entries + (128 * i) + 56, 72).Clear();
            }
        }
    }
}
