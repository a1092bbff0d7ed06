using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>Power that is cut by a file, and the parameters of the plugin.</summary>
public sealed class PowercutCutFileTests
{
    private const int Size = 8192;

    private static byte[] Fill(byte value, int length) => [.. Enumerable.Repeat(value, length)];

    private static ValueTask WriteAsync(NextContext disk, byte value, long offset, int length, bool fua = false)
        => disk.WriteAsync(Fill(value, length), offset, fua ? RequestFlags.Fua : RequestFlags.None, default);

    [Test]
    public async Task The_power_is_cut_each_time_that_the_file_appears()
    {
        using var folder = new ScratchDirectory();
        var stable = new ModelPlugin(Fill(1, Size));
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable), CutFile = folder["cut"], Seed = 1 };
        NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 512, fua: true);
        folder.Write("cut", []);
        Assert.That(TestData.Failure(async () => await WriteAsync(disk, 3, 0, 512)).Error, Is.EqualTo(NbdError.Shutdown));
        await disk.DisposeAsync();
        disk = await chain.OpenAsync();
        await WriteAsync(disk, 4, 512, 512, fua: true);
        Assert.That(plugin.Generation, Is.EqualTo(1));
        File.Delete(folder["cut"]);
        Assert.That((await TestData.ReadAsync(disk, 512, 1))[0], Is.EqualTo(4));
        await WriteAsync(disk, 5, 0, Size);
        folder.Write("cut", []);
        await disk.DisposeAsync();
        await chain.DisposeAsync();
        Assert.That(plugin.Generation, Is.EqualTo(2), "also by who stops the server only then");
        Assert.That(stable.Stable[0], Is.EqualTo(2).Or.EqualTo(5));
    }

    [Test]
    public async Task Who_comes_while_the_power_is_being_cut_waits_for_it()
    {
        using var folder = new ScratchDirectory();
        var gate = new Gate();
        var stable = new ModelPlugin(Fill(1, Size));
        stable.Before = call => call.StartsWith("flush", StringComparison.Ordinal) ? gate.PassAsync().AsTask() : Task.CompletedTask;
        await using NbdBackend chain = NbdBackend.Compose(
            new PowercutPlugin { Chain = NbdBackend.Compose(stable), CutFile = folder["cut"], Seed = 1 });
        await using NextContext old = await chain.OpenAsync();
        folder.Write("cut", []);
        Task<byte[]> first = TestData.ReadAsync(old, 0, 1);
        await gate.ArrivedAsync();
        Task<NextContext> opening = chain.OpenAsync().AsTask();
        Assert.That((first.IsCompleted, opening.IsCompleted), Is.EqualTo((false, false)));
        gate.Open();
        Assert.That(TestData.Failure(() => first.Soon()).Error, Is.EqualTo(NbdError.Shutdown));
        await using NextContext disk = await opening.Soon();
        Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(Fill(1, 1)));
    }

    [TestCase("file=x sector=100", "sector")]
    [TestCase("file=x sector=1M", "sector")]
    [TestCase("file=x maxpending=-1", "maxpending")]
    [TestCase("file=x cutfile=", "")]
    [TestCase("sector=512", "file=")]
    public void Wrong_parameters_are_refused(string line, string named)
    {
        IEnumerable<KeyValuePair<string, string>> parameters = line.Split(' ').Select(word => word.Split('='))
            .Select(pair => new KeyValuePair<string, string>(pair[0], pair[1]));
        Assert.That(
            () => new NbdCatalogue().Compose("powercut", [], parameters),
            Throws.InstanceOf<ArgumentException>().With.Message.Contains(named));
    }

    [Test]
    public void A_plugin_that_is_not_running_has_nothing_to_cut()
    {
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(new byte[1])) };
        Assert.That(() => plugin.CutAsync(1), Throws.InvalidOperationException);
        Assert.That(() => plugin.RebootAsync(1), Throws.InvalidOperationException);
        Assert.That((plugin.Pending, plugin.Generation), Is.EqualTo((0L, 0)));
    }
}
