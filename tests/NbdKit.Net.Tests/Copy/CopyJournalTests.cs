using NbdKit.Copy;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Copy;

public sealed class CopyJournalTests
{
    private static readonly JournalIdentity Identity = new(10_000, 20_000, 512, "a to b");

    private ScratchDirectory _folder = null!;

    private string Path => _folder["journal"];

    [SetUp]
    public void MakeFolder() => _folder = new ScratchDirectory();

    [TearDown]
    public void RemoveFolder() => _folder.Dispose();

    [Test]
    public void What_was_recorded_is_there_when_it_is_opened_again()
    {
        using (CopyJournal journal = CopyJournal.Open(Path, Identity))
        {
            Assert.That(journal.Copied.IsEmpty);
            journal.Append(Set((0, 512), (2048, 512)));
            journal.Append(Set((512, 512), (9728, 272)));
        }
        using CopyJournal again = CopyJournal.Open(Path, Identity);
        Assert.That(
            again.Copied.Ranges,
            Is.EqualTo(new[] { new CopyRange(0, 1024), new CopyRange(2048, 512), new CopyRange(9728, 272) }));
        again.Append(Set((1024, 1024)));
        again.Dispose();
        using CopyJournal third = CopyJournal.Open(Path, Identity);
        Assert.That(third.Copied.Ranges[0], Is.EqualTo(new CopyRange(0, 2560)));
    }

    [Test]
    public void Cut_anywhere_it_is_refused_or_tells_of_the_records_that_are_whole()
    {
        byte[] whole = Recorded(out int[] ends);
        for (int length = 0; length < whole.Length; length++)
        {
            File.WriteAllBytes(Path, whole[..length]);
            if (length < ends[0])
            {
                Assert.That(Open, Throws.TypeOf<NbdCopyException>().With.Message.Contains("not the journal"), $"length {length}");
                continue;
            }
            int records = ends.Count(end => end <= length) - 1;
            using CopyJournal journal = Open();
            Assert.That(journal.Copied.Bytes, Is.EqualTo(records * 512), $"length {length}");
        }
    }

    [Test]
    public void A_bit_changed_anywhere_is_noticed()
    {
        byte[] whole = Recorded(out int[] ends);
        for (int i = 0; i < whole.Length; i++)
        {
            byte[] bad = [.. whole];
            bad[i] ^= 0x10;
            File.WriteAllBytes(Path, bad);
            if (i < ends[0])
            {
                Assert.That(Open, Throws.TypeOf<NbdCopyException>(), $"byte {i}");
                continue;
            }
            using CopyJournal journal = Open();
            Assert.That(journal.Copied.Bytes, Is.EqualTo((ends.Count(end => end <= i) - 1) * 512), $"byte {i}");
        }
    }

    [TestCase(9_999, 20_000, 512, "a to b", "source has 10000 bytes")]
    [TestCase(10_000, 20_001, 512, "a to b", "destination has 20000 bytes")]
    [TestCase(10_000, 20_000, 4096, "a to b", "blocks of 512 bytes")]
    [TestCase(10_000, 20_000, 512, "a to c", "'a to b'")]
    public void That_of_another_copy_is_refused_and_left_alone(long source, long destination, int granularity, string name, string says)
    {
        byte[] whole = Recorded(out _);
        NbdCopyException refusal = Assert.Throws<NbdCopyException>(
            () => CopyJournal.Open(Path, new JournalIdentity(source, destination, granularity, name)))!;
        Assert.That(refusal.Fault, Is.EqualTo(NbdCopyFault.Journal));
        Assert.That(refusal.Message, Does.Contain(says).And.Contain(Path));
        Assert.That(File.ReadAllBytes(Path), Is.EqualTo(whole));
    }

    [Test]
    public void A_range_that_is_not_of_this_copy_ends_what_is_believed()
    {
        byte[] header = JournalFormat.Header(Identity);
        byte[] good = JournalFormat.Record([new CopyRange(0, 512)], JournalFormat.Checksum(header));
        foreach (CopyRange range in new CopyRange[]
            { new(-512, 512), new(0, 0), new(512, 10_000), new(100, 412), new(512, 100), new(long.MaxValue - 511, 512) })
        {
            byte[] bad = JournalFormat.Record([new CopyRange(1024, 512), range], JournalFormat.Checksum(good));
            File.WriteAllBytes(Path, [.. header, .. good, .. bad]);
            using CopyJournal journal = Open();
            Assert.That(journal.Copied.Ranges, Is.EqualTo(new[] { new CopyRange(0, 512) }), range.ToString());
        }
    }

    [Test]
    public void Only_one_copy_has_it()
    {
        using CopyJournal journal = Open();
        Assert.That(Open, Throws.TypeOf<NbdCopyException>().With.Property("Fault").EqualTo(NbdCopyFault.Journal));
    }

    [Test]
    public void A_claim_of_very_many_ranges_allocates_nothing()
    {
        byte[] header = JournalFormat.Header(Identity);
        File.WriteAllBytes(Path, [.. header, 0x7f, 0xff, 0xff, 0xff, .. new byte[100]]);
        using CopyJournal journal = Open();
        Assert.That(journal.Copied.IsEmpty);
    }

    private CopyJournal Open() => CopyJournal.Open(Path, Identity);

    /// <summary>A journal of three records of 512 bytes each, and where its header and its records end.</summary>
    private byte[] Recorded(out int[] ends)
    {
        byte[] header = JournalFormat.Header(Identity);
        using (CopyJournal journal = Open())
        {
            for (int i = 0; i < 3; i++)
            {
                journal.Append(Set((i * 1024, 512)));
            }
        }
        byte[] whole = File.ReadAllBytes(Path);
        int record = (whole.Length - header.Length) / 3;
        ends = [.. Enumerable.Range(0, 4).Select(i => header.Length + (i * record))];
        return whole;
    }

    private static RangeSet Set(params (long Offset, long Length)[] ranges)
    {
        var set = new RangeSet();
        foreach ((long offset, long length) in ranges)
        {
            set.Add(offset, length);
        }
        return set;
    }
}
