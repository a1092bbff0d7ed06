using System.Text;
using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

public sealed class SplitPluginTests
{
    private string _folder = "";

    [SetUp]
    public void MakeFolder() => _folder = Directory.CreateTempSubdirectory("nbdkit-split-").FullName;

    [TearDown]
    public void RemoveFolder() => Directory.Delete(_folder, recursive: true);

    [Test]
    public async Task Every_range_is_read_across_the_borders()
    {
        string[] files = Make("", "abc", "", "", "d", "efghij", "");
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(10));
        for (int from = 0; from < 10; from++)
        {
            for (int length = 1; length <= 10 - from; length++)
            {
                byte[] found = new byte[length];
                await disk.ReadAsync(found, from, default);
                Assert.That(Encoding.ASCII.GetString(found), Is.EqualTo("abcdefghij".Substring(from, length)));
            }
        }
    }

    [Test]
    public async Task Every_range_is_written_across_the_borders_and_into_the_files()
    {
        string[] files = Make("", "abc", "", "", "d", "efghij", "");
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        byte[] model = "abcdefghij"u8.ToArray();
        byte next = (byte)'A';
        for (int from = 0; from < 10; from++)
        {
            for (int length = 1; length <= 10 - from; length++)
            {
                byte[] data = new byte[length];
                foreach (ref byte letter in data.AsSpan())
                {
                    letter = next = (byte)(next == 'Z' ? 'A' : next + 1);
                }
                data.CopyTo(model, from);
                await disk.WriteAsync(data, from, length % 2 == 0 ? RequestFlags.Fua : RequestFlags.None, default);
                Assert.That(files.SelectMany(ReadShared), Is.EqualTo(model), $"{length} bytes at {from}");
            }
        }
        await disk.FlushAsync(default);
        Assert.That(files.Select(file => new FileInfo(file).Length), Is.EqualTo(new long[] { 0, 3, 0, 0, 1, 6, 0 }));
    }

    [Test]
    public async Task Requests_in_parallel_meet_no_one_elses_position()
    {
        string[] files = Make(new string('x', 5_000), new string('x', 3_001), new string('x', 8_191));
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.Parallel));
        const int Slice = 1_619;
        await Parallel.ForAsync(0, 10, async (worker, cancellationToken) =>
        {
            byte[] data = new byte[Slice];
            byte[] found = new byte[Slice];
            for (int round = 0; round < 50; round++)
            {
                data.AsSpan().Fill((byte)((worker * 20) + round));
                await disk.WriteAsync(data, worker * Slice, RequestFlags.None, cancellationToken);
                await disk.ReadAsync(found, worker * Slice, cancellationToken);
                Assert.That(found.AsSpan().SequenceEqual(data), Is.True, $"worker {worker}, round {round}");
            }
        });
    }

    [Test]
    public async Task A_zero_across_the_border_reaches_both_files()
    {
        string[] files = Make("abc", "def");
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(1, 4, RequestFlags.MayTrim | RequestFlags.Fua, default);
        Assert.That(files.SelectMany(ReadShared), Is.EqualTo("a\0\0\0\0f"u8.ToArray()));
        await disk.CacheAsync(0, 6, default);
        NbdExportInfo info = disk.Info;
        Assert.That(
            (info.CanFlush, info.CanFua, info.CanMultiConn, info.IsBlocking),
            Is.EqualTo((true, Support.Native, true, false)));
    }

    [Test]
    public async Task Extents_run_across_the_files_and_agree_with_what_is_read()
    {
        string[] files = Make("", "data", "");
        foreach (string file in new[] { files[0], files[2] })
        {
            using FileStream sparse = File.OpenWrite(file);
            sparse.SetLength(1 << 20);
        }
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default);
        Assert.That(extents.Covered, Is.EqualTo(disk.Info.Size));
        Extent data = extents.Single(e => e.Offset <= 1 << 20 && e.End > 1 << 20);
        Assert.That(data.Status, Is.EqualTo(ExtentStatus.Data));
        foreach (Extent extent in extents.Where(e => (e.Status & ExtentStatus.Zero) != 0))
        {
            byte[] content = new byte[extent.Length];
            await disk.ReadAsync(content, extent.Offset, default);
            Assert.That(content, Is.All.Zero, $"{extent}");
        }
        var one = new ExtentList((1 << 20) + 1, disk.Info.Size);
        await disk.ExtentsAsync((1 << 20) + 1, 100, RequestFlags.RequestOne, one, default);
        Assert.That(one[0].Offset, Is.EqualTo((1 << 20) + 1));
    }

    [Test]
    public async Task Offsets_beyond_four_gibibytes_reach_the_right_file()
    {
        string[] files = Make("", "end");
        using (FileStream sparse = File.OpenWrite(files[0]))
        {
            sparse.SetLength((5L << 30) + 1);
        }
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        byte[] found = new byte[5];
        await disk.ReadAsync(found, (5L << 30) - 1, default);
        Assert.That(found, Is.EqualTo("\0\0end"u8.ToArray()));
    }

    [Test]
    public async Task All_files_empty_make_an_empty_disk()
    {
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = Make("", "") });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
        await disk.FlushAsync(default);
    }

    [Test]
    public async Task A_read_only_open_cannot_write()
    {
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = Make("abc") });
        await using NextContext disk = await chain.OpenAsync(readOnly: true);
        Assert.That(disk.Info.CanWrite, Is.False);
        await disk.FlushAsync(default);
    }

    [Test]
    public async Task A_file_that_cannot_be_written_makes_the_disk_read_only()
    {
        string[] files = Make("abc", "def");
        File.SetAttributes(files[1], FileAttributes.ReadOnly);
        try
        {
            if (CanOpenForWriting(files[1]))
            {
                // Permissions do not bind this user; the program that is running is usually busy for everybody.
                files[1] = Environment.ProcessPath!;
                Assume.That(CanOpenForWriting(files[1]), Is.False, "no file here that cannot be opened for writing");
            }
            await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
            await using NextContext disk = await chain.OpenAsync();
            Assert.That(disk.Info.CanWrite, Is.False);
            byte[] found = new byte[3];
            await disk.ReadAsync(found, 0, default);
            Assert.That(found, Is.EqualTo("abc"u8.ToArray()));
        }
        finally
        {
            File.SetAttributes(Path.Combine(_folder, "1"), FileAttributes.Normal);
        }
    }

    [Test]
    public async Task A_file_that_has_become_shorter_fails_the_read_with_EIO()
    {
        string[] files = Make("abc", "def");
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using NextContext disk = await chain.OpenAsync();
        await File.WriteAllTextAsync(files[1], "d");
        Assert.That(
            async () => await disk.ReadAsync(new byte[6], 0, default),
            Throws.TypeOf<NbdException>().With.Property("Error").EqualTo(NbdError.IoError));
        byte[] found = new byte[4];
        await disk.ReadAsync(found, 0, default);
        Assert.That(found, Is.EqualTo("abcd"u8.ToArray()));
    }

    [Test]
    public async Task Each_context_opens_the_files_anew_and_closes_them()
    {
        string[] files = Make("abc");
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await using (NextContext first = await chain.OpenAsync())
        {
            await File.AppendAllTextAsync(files[0], "def");
            await using NextContext second = await chain.OpenAsync();
            Assert.That((first.Info.Size, second.Info.Size), Is.EqualTo((3L, 6L)));
        }
        Assert.That(CanOpenForWriting(files[0], FileShare.None), Is.True);
    }

    [Test]
    public void A_missing_file_fails_the_start()
    {
        string[] files = [.. Make("abc"), Path.Combine(_folder, "missing")];
        Assert.That(
            async () => await NbdBackend.Compose(new SplitPlugin { Files = files }).StartAsync(),
            Throws.TypeOf<FileNotFoundException>().With.Message.Contains("missing"));
    }

    [Test]
    public async Task A_file_that_vanished_fails_the_open()
    {
        string[] files = Make("abc", "def");
        await using NbdBackend chain = NbdBackend.Compose(new SplitPlugin { Files = files });
        await chain.StartAsync();
        File.Delete(files[1]);
        Assert.That(async () => await chain.OpenAsync(), Throws.TypeOf<NbdException>());
        Assert.That(CanOpenForWriting(files[0], FileShare.None), Is.True, "the other file was closed");
    }

    [Test]
    public void Wrong_lists_are_refused_where_they_are_set()
    {
        Assert.That(() => new SplitPlugin { Files = null! }, Throws.ArgumentNullException);
        Assert.That(() => new SplitPlugin { Files = [] }, Throws.ArgumentException);
        Assert.That(() => new SplitPlugin { Files = [""] }, Throws.ArgumentException);
        Assert.That(() => new SplitPlugin { Files = [null!] }, Throws.ArgumentNullException);
        Assert.That(new SplitPlugin { Files = ["a"] }.Files, Is.EqualTo(new[] { Path.GetFullPath("a") }));
    }

    [Test]
    public async Task The_catalogue_makes_it_from_repeated_and_bare_parameters()
    {
        string[] files = Make("abc", "def", "ghi");
        var catalogue = new NbdCatalogue();
        catalogue.Add(SplitPlugin.Entry);
        await using NbdBackend chain = catalogue.Compose(
            "split", [], [new("", files[2]), new("file", files[0]), new("", files[1])]);
        await using NextContext disk = await chain.OpenAsync();
        byte[] found = new byte[9];
        await disk.ReadAsync(found, 0, default);
        Assert.That(found, Is.EqualTo("ghiabcdef"u8.ToArray()));
        Assert.That(() => catalogue.Compose("split", [], []), Throws.ArgumentException.With.Message.Contains("file="));
    }

    private string[] Make(params string[] contents)
    {
        for (int i = 0; i < contents.Length; i++)
        {
            File.WriteAllText(Path.Combine(_folder, $"{i}"), contents[i]);
        }
        return [.. contents.Select((_, i) => Path.Combine(_folder, $"{i}"))];
    }

    private static byte[] ReadShared(string path)
    {
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] bytes = new byte[file.Length];
        file.ReadExactly(bytes);
        return bytes;
    }

    private static bool CanOpenForWriting(string path, FileShare share = FileShare.ReadWrite)
    {
        try
        {
            File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, share).Dispose();
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
