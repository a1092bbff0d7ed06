using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class HelpTests
{
    private static readonly NbdCatalogue Catalogue = new();

    private static IEnumerable<string> Plugins => Catalogue.Plugins.Select(p => p.Name);

    private static IEnumerable<string> Filters => Catalogue.Filters.Select(f => f.Name);

    [Test]
    public void The_general_help_has_every_option_plugin_and_filter()
    {
        string text = Help.Text(Catalogue, null, []);
        using (Assert.EnterMultipleScope())
        {
            foreach (OptionEntry option in OptionEntry.All)
            {
                Assert.That(text, Does.Contain("--" + option.Names[0]));
            }
            foreach (string name in Plugins.Concat(Filters))
            {
                Assert.That(text, Does.Match($"(?m)^  {name} +\\S"));
            }
        }
    }

    [TestCaseSource(nameof(Plugins))]
    public void The_help_of_a_plugin_has_its_parameters(string name)
    {
        NbdPluginEntry entry = Catalogue.Plugin(name);
        string text = Help.Text(Catalogue, name, []);
        Assert.That(text, Does.StartWith($"plugin {name}: {entry.Description}\n"));
        AssertParameters(text, entry.Parameters);
    }

    [TestCaseSource(nameof(Filters))]
    public void The_help_of_a_filter_has_its_parameters(string name)
    {
        NbdFilterEntry entry = Catalogue.Filter(name);
        string text = Help.Text(Catalogue, null, [name]);
        Assert.That(text, Does.StartWith($"filter {name}: {entry.Description}\n"));
        AssertParameters(text, entry.Parameters);
    }

    [Test]
    public void Filters_come_before_the_plugin_and_marks_before_the_help()
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(new NbdFilterEntry("plain", "does nothing", [], _ => throw new NotSupportedException()));
        catalogue.Add(new NbdPluginEntry(
            "disk",
            "a disk",
            [
                new NbdParameter("file", "the file") { IsRequired = true },
                new NbdParameter("longer-name", "more") { IsRepeatable = true },
            ],
            _ => throw new NotSupportedException())
        {
            MagicParameter = "file",
        });
        Assert.That(Help.Text(catalogue, "disk", ["plain"]), Is.EqualTo("""
            filter plain: does nothing
              It has no parameters.

            plugin disk: a disk
              [file=]VALUE       (required) the file
              longer-name=VALUE  (repeatable) more

            """));
    }

    [Test]
    public void An_unknown_name_is_answered_with_those_there_are()
        => Assert.That(
            () => Help.Text(Catalogue, "nosuch", []),
            Throws.ArgumentException.With.Message.Contains("memory"));

    private static void AssertParameters(string text, IReadOnlyList<NbdParameter> parameters)
    {
        using (Assert.EnterMultipleScope())
        {
            foreach (NbdParameter parameter in parameters)
            {
                Assert.That(text, Does.Contain(parameter.Name + "=").Or.Contain(parameter.Name + "=]"));
                Assert.That(text, Does.Contain(parameter.Help));
            }
        }
    }

    [Test]
    public void A_filter_s_name_alone_shows_its_help()
        => Assert.That(Help.Text(new NbdCatalogue(), "cow", []), Does.Contain("cow-block-size"));
}
