using NbdKit.Filters;
using NbdKit.Filters.Extents;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class ExtentlistFilterTests
{
    private const ExtentStatus HoleZero = ExtentStatus.Hole | ExtentStatus.Zero;

    private static async Task<ExtentList> AllAsync(NextContext disk)
        => await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default);

    [Test]
    public void Lines_are_read_as_in_nbdkit()
    {
        const string Text = "# a list\n\n 1M 9M  hole,zero # the rest\r\n0\t1M\n0x10000000 4s 1\n1G 1 zero\n2G 1 0\n";
        Assert.That(ExtentFile.Parse(Text), Is.EqualTo(new[]
        {
            new Extent(1 << 20, 9 << 20, HoleZero),
            new Extent(0, 1 << 20, ExtentStatus.Data),
            new Extent(0x1000_0000, 2048, ExtentStatus.Hole),
            new Extent(1 << 30, 1, ExtentStatus.Zero),
            new Extent(1L << 31, 1, ExtentStatus.Data),
        }));
    }

    [TestCase("0", "line 1")]
    [TestCase("0 1\n0 1 2 3", "line 2")]
    [TestCase("0 x", "line 1")]
    [TestCase("0 1 4", "'4'")]
    [TestCase("0 1 hole,none", "hole,none")]
    [TestCase("0x7fffffffffffffff 1", "not a range")]
    [TestCase("[{\"start\":0}]", "qemu-img map")]
    [TestCase("[{\"start\":-1,\"length\":1,\"data\":true,\"zero\":false}]", "not a range")]
    [TestCase("[{\"start\":0.5,\"length\":1,\"data\":true,\"zero\":false}]", "qemu-img map")]
    [TestCase("[1]", "qemu-img map")]
    [TestCase("[", "qemu-img map")]
    public void What_is_no_list_is_refused_with_its_place(string text, string message)
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("list", System.Text.Encoding.UTF8.GetBytes(text));
        Assert.That(
            () => ExtentlistFilter.Entry.Create(new NbdParameters("extentlist", [new("extentlist", path)])),
            Throws.ArgumentException.With.Message.Contains(message).And.Message.Contains(path));
    }

    [Test]
    public void A_missing_file_is_named()
        => Assert.That(() => ExtentlistFilter.ReadFile("/nonexistent/list"), Throws.ArgumentException.With.Message.Contains("/nonexistent/list"));

    [Test]
    public void Overlaps_are_refused()
        => Assert.That(
            () => new ExtentlistFilter { Extents = [new(10, 10, 0), new(0, 11, 0)] },
            Throws.ArgumentException.With.Message.Contains("overlap"));

    [Test]
    public async Task Gaps_are_holes_and_what_lies_beyond_the_end_does_not_show()
    {
        var info = ModelPlugin.Everything with { CanExtents = false };
        var filter = new ExtentlistFilter { Extents = [new(3000, 99_999, ExtentStatus.Data), new(500, 500, ExtentStatus.Zero)] };
        await using NextContext disk = await NbdBackend.Compose(new ModelPlugin(new byte[10_000], info), filter).OpenAsync();
        Assert.That(await AllAsync(disk), Is.EqualTo(new[]
        {
            new Extent(0, 500, HoleZero), new Extent(500, 500, ExtentStatus.Zero), new Extent(1000, 2000, HoleZero),
            new Extent(3000, 7000, ExtentStatus.Data),
        }));
    }

    [Test]
    public async Task Holes_are_not_read()
    {
        var plugin = new ModelPlugin(new byte[10_000]);
        await using NextContext disk = await NbdBackend
            .Compose(plugin, new ExtentlistFilter { Extents = [new(1000, 500, ExtentStatus.Data)] }).OpenAsync();
        await disk.ReadSparseAsync(new byte[10_000], 0, new ExtentList(0, 10_000), default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "read 1000+500" }));
    }

    [Test]
    public async Task Changes_show_at_once_on_every_connection_under_whatever_name()
    {
        var plugin = new ModelPlugin(new byte[10_000]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ExtentlistFilter { Extents = [] });
        await using NextContext one = await chain.OpenAsync("a");
        await using NextContext two = await chain.OpenAsync("a");
        await using NextContext other = await chain.OpenAsync("b");
        await one.WriteAsync(TestData.Random(100), 1000, RequestFlags.None, default);
        Assert.That(await AllAsync(two), Is.EqualTo(new[]
        {
            new Extent(0, 1000, HoleZero), new Extent(1000, 100, ExtentStatus.Data), new Extent(1100, 8900, HoleZero),
        }));
        await two.ZeroAsync(1050, 25, RequestFlags.None, default);
        await two.TrimAsync(1090, 20, RequestFlags.None, default);
        await two.ZeroAsync(1000, 10, RequestFlags.MayTrim, default);
        Assert.That(await AllAsync(one), Is.EqualTo(new[]
        {
            new Extent(0, 1010, HoleZero), new Extent(1010, 40, ExtentStatus.Data), new Extent(1050, 25, ExtentStatus.Zero),
            new Extent(1075, 15, ExtentStatus.Data), new Extent(1090, 20, ExtentStatus.Hole), new Extent(1110, 8890, HoleZero),
        }));
        Assert.That(await AllAsync(other), Is.EqualTo(await AllAsync(one)));
    }

    [Test]
    public async Task A_write_is_data_before_it_is_done_and_stays_so_if_it_fails()
    {
        var plugin = new ModelPlugin(new byte[1000]);
        await using NextContext disk = await NbdBackend.Compose(plugin, new ExtentlistFilter { Extents = [] }).OpenAsync();
        ExtentList? during = null;
        plugin.Before = async _ =>
        {
            during = await AllAsync(disk);
            throw new NbdException(NbdError.IoError, "on purpose");
        };
        Assert.That(
            TestData.Failure(async () => await disk.WriteAsync(new byte[1000], 0, RequestFlags.None, default)).Error,
            Is.EqualTo(NbdError.IoError));
        Assert.That(during, Is.EqualTo(new[] { new Extent(0, 1000, ExtentStatus.Data) }));
        Assert.That(await AllAsync(disk), Is.EqualTo(during));
    }

    [Test]
    public async Task A_write_that_comes_while_a_range_is_zeroed_stays_data()
    {
        var plugin = new ModelPlugin(new byte[1000]);
        await using NextContext disk = await NbdBackend.Compose(plugin, new ExtentlistFilter { Extents = [] }).OpenAsync();
        var gate = new TaskCompletionSource();
        plugin.Before = call => call.StartsWith("zero", StringComparison.Ordinal) ? gate.Task : Task.CompletedTask;
        Task zero = disk.ZeroAsync(0, 1000, RequestFlags.MayTrim, default).AsTask();
        Task write = disk.WriteAsync(TestData.Random(100), 500, RequestFlags.None, default).AsTask();
        gate.SetResult();
        await Task.WhenAll(zero, write);
        Assert.That((await AllAsync(disk)).Single(e => e.Status == ExtentStatus.Data), Is.EqualTo(new Extent(500, 100, ExtentStatus.Data)));
        Assert.That(plugin.Data[500..600], Is.EqualTo(TestData.Random(100)));
    }

    [Test]
    public void Any_history_of_the_map_agrees_with_an_array([Range(1, 20)] int seed)
    {
        const int Size = 300;
        var random = new Random(seed);
        var model = new ExtentStatus[Size];
        Array.Fill(model, HoleZero);
        var map = new ExtentMap([]);
        for (int i = 0; i < 500; i++)
        {
            int start = random.Next(Size);
            int end = random.Next(start, Size) + 1;
            var status = (ExtentStatus)random.Next(4);
            map.Set(start, end, status);
            model.AsSpan(start..end).Fill(status);
            var extents = new ExtentList(0, Size);
            map.Query(0, Size, extents);
            Assert.That(extents.SelectMany(e => Enumerable.Repeat(e.Status, (int)e.Length)), Is.EqualTo(model), $"seed {seed}: #{i}");
            int from = random.Next(Size);
            var one = new ExtentList(from, Size);
            map.Query(from, from + 1, one);
            Assert.That(one[0].Status, Is.EqualTo(model[from]));
        }
    }
}
