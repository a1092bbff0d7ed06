using System.Buffers.Binary;
using System.Text;

namespace NbdKit.Tests.Testing;

/// <summary>
/// Reads all that a FAT32 partition holds, and fails the test where the file system contradicts itself. Made from the
/// description of the format only.
/// </summary>
internal sealed class FatReader
{
    private readonly NextContext _disk;
    private readonly HashSet<uint> _used = [];
    private long _start;
    private int _clusterSize;
    private long _data;
    private byte[] _table = [];

    private FatReader(NextContext disk) => _disk = disk;

    /// <summary>By path: content, null for a directory, and date of change.</summary>
    public Dictionary<string, (byte[]? Content, DateTime Modified)> Entries { get; } = [];

    public string Label { get; private set; } = "";

    public int ClusterSize => _clusterSize;

    public uint Clusters { get; private set; }

    public static async Task<FatReader> ReadAsync(NextContext disk)
    {
        var reader = new FatReader(disk);
        await reader.RunAsync();
        return reader;
    }

    private async Task RunAsync()
    {
        byte[] table = await TestData.ReadAsync(_disk, 0, 512);
        Assert.That((table[450], table[510], table[511]), Is.EqualTo(((byte)0x0c, (byte)0x55, (byte)0xaa)));
        _start = 512L * U32(table, 454);
        Assert.That(_start + (512L * U32(table, 458)), Is.LessThanOrEqualTo(_disk.Info.Size));
        byte[] boot = await TestData.ReadAsync(_disk, _start, 512);
        Assert.That(await TestData.ReadAsync(_disk, _start, 1536), Is.EqualTo(await TestData.ReadAsync(_disk, _start + (6 * 512), 1536)));
        Assert.That(Encoding.ASCII.GetString(boot, 82, 8), Is.EqualTo("FAT32   "));
        Assert.That((U16(boot, 11), boot[16], U32(boot, 32)), Is.EqualTo(((ushort)512, (byte)2, U32(table, 458))));
        _clusterSize = 512 * boot[13];
        long tableStart = _start + (512L * U16(boot, 14));
        long tableSize = 512L * U32(boot, 36);
        _data = tableStart + (2 * tableSize);
        Clusters = (uint)((_start + (512L * U32(boot, 32)) - _data) / _clusterSize);
        Assert.That(Clusters, Is.GreaterThanOrEqualTo(65_525));
        Assert.That(tableSize / 4, Is.GreaterThanOrEqualTo(Clusters + 2));
        _table = await TestData.ReadAsync(_disk, tableStart, (int)tableSize);
        Assert.That((await TestData.ReadAsync(_disk, tableStart + tableSize, (int)tableSize)).AsSpan().SequenceEqual(_table), "the two tables");
        Assert.That(U32(_table, 0) & 0xff, Is.EqualTo(boot[21]));

        await DirectoryAsync("", U32(boot, 44), 0, 0);
        Assert.That(Encoding.ASCII.GetString(boot, 71, 11), Is.EqualTo(Label));
        int marked = Enumerable.Range(2, (int)(tableSize / 4) - 2).Count(i => U32(_table, 4 * i) != 0);
        Assert.That(marked, Is.EqualTo(_used.Count), "clusters that nothing uses");
        byte[] info = await TestData.ReadAsync(_disk, _start + 512, 512);
        Assert.That(U32(info, 488), Is.EqualTo(Clusters - marked));
    }

    private async Task DirectoryAsync(string path, uint cluster, uint parent, int depth)
    {
        byte[] bytes = await ChainAsync(cluster);
        var shortNames = new HashSet<string>();
        string longName = "";
        byte sum = 0;
        for (int at = 0; at < bytes.Length && bytes[at] != 0; at += 32)
        {
            byte[] entry = bytes[at..(at + 32)];
            if (entry[11] == 0x0f)
            {
                (longName, sum) = ((entry[0] & 0x40) != 0 ? Part(entry) : Part(entry) + longName, entry[13]);
                continue;
            }
            string stored = Encoding.ASCII.GetString(entry, 0, 11);
            Assert.That(shortNames.Add(stored), $"two {stored} in {path}");
            uint first = ((uint)U16(entry, 20) << 16) | U16(entry, 26);
            if (entry[11] == 8)
            {
                (Label, longName) = (stored, "");
            }
            else if (stored[0] == '.')
            {
                Assert.That(first, Is.EqualTo(stored[1] == '.' ? parent : cluster), path);
            }
            else
            {
                Assert.That(stored.All(c => c is >= ' ' and < '\x7f' && !char.IsAsciiLetterLower(c)), stored);
                byte expected = entry.Take(11).Aggregate((byte)0, (s, b) => (byte)(((s >> 1) | (s << 7)) + b));
                Assert.That(longName.Length == 0 || sum == expected, $"sum of {longName}");
                string extension = stored[8..].TrimEnd();
                string name = longName.Length > 0 ? longName : stored[..8].TrimEnd() + (extension.Length > 0 ? "." + extension : "");
                await EntryAsync($"{path}/{name}", entry, first, depth == 0 ? 0 : cluster, depth);
            }
            longName = "";
        }
    }

    private async Task EntryAsync(string path, byte[] entry, uint first, uint parent, int depth)
    {
        bool isDirectory = (entry[11] & 0x10) != 0;
        byte[]? content = null;
        if (isDirectory)
        {
            await DirectoryAsync(path, first, parent, depth + 1);
        }
        else
        {
            int size = (int)U32(entry, 28);
            byte[] chain = await ChainAsync(first);
            Assert.That((chain.Length + _clusterSize - 1) / _clusterSize, Is.EqualTo((size + _clusterSize - 1) / _clusterSize), path);
            Assert.That(chain.AsSpan(size).IndexOfAnyExcept((byte)0), Is.EqualTo(-1), $"padding of {path}");
            content = chain[..size];
        }
        int date = U16(entry, 24);
        int time = U16(entry, 22);
        Entries.Add(path[1..], (content, new DateTime(
            1980 + (date >> 9), (date >> 5) & 15, date & 31, time >> 11, (time >> 5) & 63, (time & 31) * 2)));
    }

    private async Task<byte[]> ChainAsync(uint cluster)
    {
        var content = new MemoryStream();
        while (cluster is not 0 and < 0x0ffffff8)
        {
            Assert.That(cluster, Is.InRange(2u, Clusters + 1));
            Assert.That(_used.Add(cluster), $"cluster {cluster} is used twice");
            content.Write(await TestData.ReadAsync(_disk, _data + ((long)(cluster - 2) * _clusterSize), _clusterSize));
            cluster = U32(_table, 4 * (int)cluster);
            Assert.That(cluster, Is.Not.Zero);
        }
        return content.ToArray();
    }

    private static string Part(byte[] entry)
    {
        // Not decoded as text: a pair of surrogates may stand in two entries.
        byte[] units = [.. entry[1..11], .. entry[14..26], .. entry[28..32]];
        return string.Concat(Enumerable.Range(0, 13).Select(i => (char)U16(units, 2 * i)).TakeWhile(c => c != '\0'));
    }

    private static ushort U16(byte[] bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(at));

    private static uint U32(byte[] bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at));
}
