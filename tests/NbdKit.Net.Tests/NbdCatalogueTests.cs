using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public sealed class NbdCatalogueTests
{
    private readonly List<string> _made = [];
    private NbdCatalogue _catalogue = null!;

    [SetUp]
    public void SetUp()
    {
        _made.Clear();
        _catalogue = new NbdCatalogue();
        _catalogue.Add(new NbdPluginEntry(
            "disk",
            "a disk",
            [
                new NbdParameter("size", "its size") { IsRequired = true },
                new NbdParameter("file", "files") { IsRepeatable = true },
                new NbdParameter("shared", "known to all"),
            ],
            parameters =>
            {
                _made.Add($"disk size={parameters.Size("size")} files={string.Join("+", parameters.Texts("file"))} shared={parameters.Text("shared")}");
                return new RecordingPlugin(new CallRecorder()) { Name = "disk" };
            })
        {
            MagicParameter = "file",
        });
        foreach (string name in new[] { "first", "second" })
        {
            _catalogue.Add(new NbdFilterEntry(
                name,
                "a filter",
                [new NbdParameter("shared", "known to all"), new NbdParameter(name + "-only", "its own")],
                parameters =>
                {
                    _made.Add($"{name} shared={parameters.Text("shared")} only={parameters.Text(name + "-only")}");
                    return new RecordingFilter(new CallRecorder(), name);
                }));
        }
    }

    [Test]
    public void A_chain_is_composed_as_the_names_say()
    {
        NbdBackend chain = _catalogue.Compose("disk", ["first", "second"], [new("size", "1k")]);
        Assert.That((chain.Name, chain.Next!.Name, chain.Next.Next!.Name, chain.Next.Next.Next), Is.EqualTo(("first", "second", "disk", default(NbdBackend))));
    }

    [Test]
    public void Each_parameter_goes_to_the_first_layer_from_the_client_inwards_that_knows_it()
    {
        _catalogue.Compose(
            "disk",
            ["second", "first"],
            [new("size", "4k"), new("shared", "x"), new("first-only", "1"), new("second-only", "2"), new("file", "a"), new("", "b=c")]);
        Assert.That(_made, Is.EqualTo(new[]
        {
            "second shared=x only=2", "first shared= only=1", "disk size=4096 files=a+b=c shared=",
        }));
    }

    [Test]
    public void Without_a_filter_that_knows_it_the_plugin_gets_it()
    {
        _catalogue.Compose("disk", [], [new("size", "1"), new("shared", "x")]);
        Assert.That(_made, Is.EqualTo(new[] { "disk size=1 files= shared=x" }));
    }

    [Test]
    public void Mistakes_are_named()
    {
        Refuses("tape", [], [], "There is no plugin named 'tape'. Known: ");
        Refuses("disk", ["third"], [], "There is no filter named 'third'. Known: ");
        Refuses("disk", [], [], "disk: the parameter size= is required (its size).");
        Refuses("disk", [], [new("size", "1"), new("size", "2")], "disk: the parameter size= was given 2 times.");
        Refuses("disk", ["first"], [new("size", "1"), new("shared", "1"), new("shared", "2")], "first: the parameter shared= was given 2 times.");
        Refuses("disk", ["first"], [new("size", "1"), new("colour", "red")], "Unknown parameter 'colour'. Known: first: shared, first-only; disk: size, file, shared.");
        Refuses("disk", [], [new("size", "1"), new("first-only", "1")], "Unknown parameter 'first-only'");
        Refuses("disk", [], [new("size", "much")], "disk: size=much: 'much' is not a");
        _catalogue.Add(new NbdPluginEntry("plain", "no magic", [], _ => new RecordingPlugin(new CallRecorder())));
        Refuses("plain", [], [new("", "what")], "plain: the argument 'what' is not of the form name=value.");
        Assert.That(_made, Is.Empty);
    }

    [Test]
    public void What_is_added_replaces_what_had_its_name()
    {
        var entry = new NbdPluginEntry("disk", "another", [], _ => new RecordingPlugin(new CallRecorder()));
        _catalogue.Add(entry);
        Assert.That(_catalogue.Plugin("disk"), Is.SameAs(entry));
        Assert.That(_catalogue.Plugins.Count(plugin => plugin.Name == "disk"), Is.EqualTo(1));
        Assert.That(_catalogue.Filter("first").Description, Is.EqualTo("a filter"));
    }

    [Test]
    public void Everything_in_the_library_has_a_name_a_line_of_help_and_parameters_that_are_told_apart()
    {
        var catalogue = new NbdCatalogue();
        Assert.That(catalogue.Plugins, Is.Not.Empty);
        Assert.That(catalogue.Plugins.Select(p => p.Name), Is.Ordered.Using((IComparer<string>)StringComparer.Ordinal).And.Unique);
        Assert.That(catalogue.Filters.Select(f => f.Name), Is.Ordered.Using((IComparer<string>)StringComparer.Ordinal).And.Unique);
        foreach ((string name, string description, IReadOnlyList<NbdParameter> parameters) in
            catalogue.Plugins.Select(p => (p.Name, p.Description, p.Parameters))
                .Concat(catalogue.Filters.Select(f => (f.Name, f.Description, f.Parameters))))
        {
            Assert.That(name, Does.Match("^[a-z0-9-]+$"));
            Assert.That(description, Is.Not.Empty.And.Not.Contain("\n"), name);
            Assert.That(parameters.Select(p => p.Name), Is.Unique.And.All.Match("^[A-Za-z][A-Za-z0-9._-]*$"), name);
            Assert.That(parameters.Select(p => p.Help), Is.All.Not.Empty, name);
        }
        foreach (NbdPluginEntry plugin in catalogue.Plugins.Where(p => p.MagicParameter is not null))
        {
            Assert.That(plugin.Parameters.Select(p => p.Name), Does.Contain(plugin.MagicParameter), plugin.Name);
        }
    }

    private void Refuses(
        string plugin, string[] filters, KeyValuePair<string, string>[] parameters, string message)
        => Assert.That(
            () => _catalogue.Compose(plugin, filters, parameters), Throws.ArgumentException.With.Message.StartsWith(message));

    [Test]
    public void A_plugin_may_take_parameters_that_nobody_knows_after_the_filters()
    {
        NbdParameters? got = null;
        _catalogue.Add(new NbdPluginEntry("open", "takes anything", [], parameters =>
        {
            got = parameters;
            return new RecordingPlugin(new CallRecorder()) { Name = "open" };
        })
        {
            TakesOtherParameters = true,
        });
        _catalogue.Compose("open", ["first"], [new("b", "1"), new("first-only", "2"), new("a", "3"), new("b", "4")]);
        Assert.That(string.Join(' ', got!.All), Is.EqualTo("[b, 1] [a, 3] [b, 4]"));
    }
}
