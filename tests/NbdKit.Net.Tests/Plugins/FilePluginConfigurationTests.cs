using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class FilePluginConfigurationTests
{
    private ScratchDirectory _scratch = null!;

    [SetUp]
    public void SetUp() => _scratch = new ScratchDirectory();

    [TearDown]
    public void TearDown() => _scratch.Dispose();

    [Test]
    public async Task A_bare_argument_is_the_file()
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(FilePlugin.Entry);
        string path = _scratch.Write("disk", new byte[1234]);
        await using NbdBackend chain = catalogue.Compose(
            "file", [], [new("", path), new("cache", "none"), new("fadvise", "random")]);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1234));
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.Parallel));
    }

    [TestCase("fd", "2", "standard streams")]
    [TestCase("dirfd", "0", "standard streams")]
    [TestCase("fd", "99999", "no such descriptor was inherited")]
    [TestCase("dirfd", "-1", "dirfd=-1")]
    public void A_descriptor_that_is_none_is_refused(string name, string number, string message)
    {
        Assume.That(OperatingSystem.IsLinux());
        Assert.That(() => Create((name, number)), Throws.ArgumentException.With.Message.Contains(message));
        Assert.That(() => Create((name, number), ("file", "x")), Throws.ArgumentException.With.Message.Contains("exactly one"));
    }

    [Test]
    public void A_descriptor_of_the_process_itself_was_not_inherited()
    {
        Assume.That(OperatingSystem.IsLinux());
        using FileStream file = File.Create(_scratch["disk"]);
        Assert.That(
            () => Create(("fd", $"{file.SafeFileHandle.DangerousGetHandle()}")), Throws.ArgumentException.With.Message.Contains("inherited"));
    }

    [Test]
    public void Parameters_become_properties([Values("dir", "directory")] string name)
    {
        FilePlugin plugin = Create(
            (name, _scratch.Path), ("fadvise", "sequential"), ("cache", "default"), ("follow-links", "true"));
        Assert.That(plugin.Directory, Is.EqualTo(_scratch.Path));
        Assert.That(plugin.Path, Is.Null);
        Assert.That((plugin.Cache, plugin.Advice, plugin.FollowLinks), Is.EqualTo((FileCacheMode.Default, FileAdvice.Sequential, true)));
        Assert.That(Create(("file", "x"), ("cache", "none")).Cache, Is.EqualTo(FileCacheMode.None));
    }

    [Test]
    public void A_file_or_a_directory_is_required_and_not_both()
    {
        Assert.That(() => Create(), Throws.ArgumentException.With.Message.Contains("file="));
        Assert.That(() => Create(("file", "x"), ("dir", "y")), Throws.ArgumentException.With.Message.Contains("file="));
        Assert.That(() => Create(("dir", "x"), ("directory", "y")), Throws.ArgumentException.With.Message.Contains("directory="));
        Assert.That(() => Create(("file", "")), Throws.ArgumentException);
        Assert.That(() => Create(("file", "x"), ("cache", "some")), Throws.ArgumentException.With.Message.Contains("cache"));
        Assert.That(() => Create(("file", "x"), ("fadvise", "")), Throws.ArgumentException.With.Message.Contains("fadvise"));
    }

    [Test]
    public void The_start_fails_unless_exactly_one_of_path_and_directory_is_set()
    {
        Assert.That(() => StartAsync(new FilePlugin()), Throws.InvalidOperationException);
        Assert.That(
            () => StartAsync(new FilePlugin { Path = _scratch.Write("x", []), Directory = _scratch.Path }),
            Throws.InvalidOperationException);
    }

    [Test]
    public void The_start_fails_if_there_is_nothing_to_serve()
    {
        Assert.That(() => StartAsync(new FilePlugin { Path = _scratch["x"] }), Throws.InstanceOf<NbdException>());
        Assert.That(() => StartAsync(new FilePlugin { Path = _scratch.Path }), Throws.InstanceOf<NbdException>());
        Assert.That(() => StartAsync(new FilePlugin { Directory = _scratch["x"] }), Throws.InstanceOf<NbdException>());
        Assert.That(
            () => StartAsync(new FilePlugin { Directory = _scratch.Write("y", []) }), Throws.InstanceOf<NbdException>());
    }

    [Test]
    public void Wrong_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new FilePlugin { Path = "" }, Throws.ArgumentException);
        Assert.That(() => new FilePlugin { Path = "a\0b" }, Throws.ArgumentException);
        Assert.That(() => new FilePlugin { Directory = "" }, Throws.ArgumentException);
        Assert.That(() => new FilePlugin { Cache = (FileCacheMode)7 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new FilePlugin { Advice = (FileAdvice)7 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void A_relative_path_means_what_it_meant_when_it_was_set()
        => Assert.That(new FilePlugin { Path = "disk" }.Path, Is.EqualTo(Path.Combine(Environment.CurrentDirectory, "disk")));

    [Test]
    public async Task A_link_given_as_the_path_is_followed()
    {
        _scratch.Write("disk", new byte[77]);
        File.CreateSymbolicLink(_scratch["link"], "disk");
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _scratch["link"] });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(77));
    }

    private static async Task StartAsync(FilePlugin plugin)
    {
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
    }

    private static FilePlugin Create(params (string Name, string Value)[] parameters)
        => (FilePlugin)FilePlugin.Entry.Create(
            new NbdParameters("file", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));
}
